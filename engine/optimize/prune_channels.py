"""Structured pruning by weights: whole channels leave, so the model is smaller and faster everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.optimize.base import NOTHING
from engine.optimize.material import Material


class PruneChannels:
    """Needs no rows; with calibration rows it gives the next layers their mean and deviation back."""

    name = "prune-channels"
    label = "Prune channels by weight"
    family = "pruning"
    needs = NOTHING
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        amount: float = Field(0.3, gt=0, le=0.95, description="Share to remove, from 0 to 0.95.")
        share_of: Literal["channels", "parameters"] = Field(
            "channels", description="What the share counts: channels of each layer, or the model's weights."
        )
        criterion: Literal["magnitude", "group"] = Field(
            "magnitude",
            description="Which channels matter: by the weights that give them, or also by those that read them.",
        )
        scope: Literal["layer", "global"] = Field(
            "layer", description="The same share in every layer, or the least important channels of all layers."
        )
        multiple: int = Field(
            8, ge=1, le=128, description="Layers keep a multiple of this many channels, which computes fastest."
        )
        at_least: int = Field(1, ge=1, le=4096, description="Channels that every layer keeps.")
        exclude: list[str] = Field(
            [], max_length=200, description="Names of layers to leave alone; * stands for any part."
        )
        compensate: bool = Field(
            True, description="Give the next layers their mean and deviation back (with calibration rows only)."
        )

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="no-gain") when there are no channels to remove."""
        import onnx

        from engine.optimize.graph.choose import by_filters
        from engine.optimize.graph.refit import Repair
        from engine.optimize.graph.structured import chosen, opened, summary

        channels, groups = opened(model, options.exclude)
        scores = by_filters(channels, groups, readers=options.criterion == "group")
        removed = chosen(channels, groups, scores, options)
        pruned = channels.without(removed)
        notes = [summary(channels, groups, removed)]
        if options.compensate and material.calibration is not None:
            count = Repair(channels, pruned, removed, material.calibration, material.seed).compensate()
            notes.append(f"Mean and deviation of {count} layers are those of before.")
        onnx.save(pruned, str(target))
        return notes
