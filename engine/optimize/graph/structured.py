"""What both channel pruners share: from a file to a smaller one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from engine.optimize.graph.channels import Channels, Group
from engine.optimize.graph.choose import Wish, choose, open_groups
from engine.optimize.graph.options import ChannelOptions


def opened(model: Path, exclude: Sequence[str]) -> tuple[Channels, list[Group]]:
    """EngineError(code="no-gain") for a model without channels that could go."""
    channels = Channels(onnx.load(str(model), load_external_data=False))
    return channels, open_groups(channels, exclude)


def chosen(channels: Channels, groups: list[Group], scores: list[Any], options: ChannelOptions) -> set[int]:
    """EngineError(code="no-gain") when they leave all channels where they are."""
    wish = Wish(
        amount=options.amount,
        parameters=options.share_of == "parameters",
        everywhere=options.scope == "layer",
        multiple=options.multiple,
        at_least=options.at_least,
    )
    return choose(channels, groups, scores, wish)


def summary(channels: Channels, groups: list[Group], removed: set[int]) -> str:
    """For a person: what share of channels and of weights is gone."""
    total = sum(len(group.roots) for group in groups)
    touched = sum(bool(removed & set(group.roots.tolist())) for group in groups)
    before, after = channels.parameters(), channels.parameters(removed)
    return (
        f"{len(removed)} of {total} channels removed from {touched} of {len(groups)} groups of layers; "
        f"{1 - after / before:.0%} of the weights are gone."
    )
