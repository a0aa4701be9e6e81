"""Which channels to remove, from a score for each: the lower, the less it matters."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import numpy_helper

from engine.errors import EngineError
from engine.optimize.graph.channels import Channels, Group

_STEPS = 12  # halvings of the interval in which the share is searched: to 0.02 %


@dataclass(frozen=True, slots=True)
class Wish:
    """amount: share (0 to 0.95) of channels, or of parameters. everywhere: the same share in each layer, rather than
    the least important ones of all. multiple: of channels in a layer. at_least: channels that stay in each."""

    amount: float
    parameters: bool
    everywhere: bool
    multiple: int
    at_least: int


def open_groups(channels: Channels, exclude: Sequence[str]) -> list[Group]:
    """Groups without a layer whose name fits a pattern of `exclude`. EngineError(code="no-gain") when none is left."""

    def meant(group: Group) -> bool:
        names = [name for each in group.producers for name in (each.name, each.weight)]
        return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in exclude)

    found = [group for group in channels.groups if not meant(group)]
    if not found:
        raise nothing()
    return found


def nothing(why: str = "This model has no layers whose channels could be removed.") -> EngineError:
    return EngineError(why, field="optimizer", code="no-gain")


def choose(channels: Channels, groups: list[Group], scores: list[Any], wish: Wish) -> set[int]:
    """The sets of channels to remove. EngineError(code="no-gain") when the wish leaves all where they are."""
    if not wish.parameters:
        removed = _least(channels, groups, scores, wish, wish.amount)
    else:
        removed = _for_parameters(channels, groups, scores, wish)
    if not removed:
        raise nothing("The layers are too small to lose this many channels.")
    return removed


def _for_parameters(channels: Channels, groups: list[Group], scores: list[Any], wish: Wish) -> set[int]:
    """Bisects the share of channels until the share of parameters fits."""
    goal = (1 - wish.amount) * channels.parameters()
    low, high = 0.0, 0.98
    for _ in range(_STEPS):
        middle = (low + high) / 2
        left = channels.parameters(_least(channels, groups, scores, wish, middle))
        low, high = (middle, high) if left > goal else (low, middle)
    return _least(channels, groups, scores, wish, high)


def _least(channels: Channels, groups: list[Group], scores: list[Any], wish: Wish, amount: float) -> set[int]:
    """Globally, scores are divided by their layer's mean, so that layers of another scale can be compared."""
    if wish.everywhere:
        counts = [round(amount * len(group.roots)) for group in groups]
    else:
        fair = [score / (float(score.mean()) or 1.0) for score in scores]
        order = np.argsort(np.concatenate(fair), kind="stable")
        owner = np.repeat(np.arange(len(groups)), [len(group.roots) for group in groups])
        chosen = owner[order[: round(amount * len(order))]]
        counts = np.bincount(chosen, minlength=len(groups)).tolist()
    removed: set[int] = set()
    for group, score, count in zip(groups, scores, counts, strict=True):
        keep = _keep(channels, group, len(group.roots) - count, wish)
        order = np.argsort(score, kind="stable")
        removed.update(group.roots[order[: len(order) - keep]].tolist())
    return removed


def _keep(channels: Channels, group: Group, keep: int, wish: Wish) -> int:
    """How many sets stay: at least one, and so many that the layer's channels are a multiple."""
    first = group.producers[0]
    total, each = len(group.roots), 1
    roots = channels.roots(first.weight, first.out_axis)
    if roots is not None:
        each = max(1, int((roots == group.roots[0]).sum()))
    step = wish.multiple // math.gcd(wish.multiple, each)
    keep = max(keep, 1, math.ceil(wish.at_least / each))
    return min(total, math.ceil(keep / step) * step)


def by_filters(channels: Channels, groups: list[Group], readers: bool = False) -> list[Any]:
    """L2 norm of all weights that give a channel (Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, have
    L1), of each group (sets,); with `readers`, of those that read it too (DepGraph's group norm)."""
    totals = []
    for group in groups:
        total = np.zeros(len(group.roots))
        places = {(each.weight, each.out_axis) for each in group.producers}
        if readers:
            places |= {(each.weight, each.in_axis) for each in group.consumers}
        for weight, place in sorted(places):
            array = np.moveaxis(numpy_helper.to_array(channels.walk.stored[weight]), place, 0)
            squares = np.square(array.reshape(len(array), -1).astype(np.float64)).sum(axis=1)
            total += summed(channels, group, weight, place, squares)
        totals.append(np.sqrt(total))
    return totals


def summed(channels: Channels, group: Group, tensor: str, place: int, values: Any) -> Any:
    """Adds up values (n,) of an axis over each set of the group: (sets,)."""
    roots = channels.roots(tensor, place)
    order = np.argsort(group.roots)
    mine = np.isin(roots, group.roots)
    index = order[np.searchsorted(group.roots, roots[mine], sorter=order)]
    return np.bincount(index, weights=np.asarray(values, dtype=np.float64)[mine], minlength=len(group.roots))
