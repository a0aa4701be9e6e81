"""What may be asked of every pruner of channels."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ChannelOptions(BaseModel):
    """How much goes, and from where; which channels go is each pruner's own question."""

    model_config = ConfigDict(extra="forbid")
    amount: float = Field(0.3, gt=0, le=0.95, description="Share to remove, from 0 to 0.95.")
    share_of: Literal["channels", "parameters"] = Field(
        "channels", description="What the share counts: channels of each layer, or the model's weights."
    )
    scope: Literal["layer", "global"] = Field(
        "layer", description="The same share in every layer, or the least important channels of all layers."
    )
    multiple: int = Field(
        8, ge=1, le=128, description="Layers keep a multiple of this many channels, which computes fastest."
    )
    at_least: int = Field(1, ge=1, le=4096, description="Channels that every layer keeps.")
    exclude: list[str] = Field([], max_length=200, description="Names of layers to leave alone; * stands for any part.")
