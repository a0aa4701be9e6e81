"""How labels pass operators that move, join, cut or sum up entries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.optimize.graph.labels import Axes, Axis
from engine.optimize.graph.rules_layers import frozen_at
from engine.optimize.graph.walk import Size, Unfit, Walk, attribute, spread

_OPEN = 2**31 - 1  # stands for the size of an open dimension: a prime no product of others gives


def transpose(walk: Walk, node: Any) -> list[Axes]:
    x = walk.of(node.input[0])
    order = attribute(node, "perm", list(reversed(range(len(x)))))
    return [[x[place] for place in order]]


def concat(walk: Walk, node: Any) -> list[Axes]:
    operands = [walk.of(name) for name in node.input]
    rank = len(operands[0])
    place = attribute(node, "axis") % rank
    result: Axes = []
    for number in range(rank):
        axes = [each[number] for each in operands]
        if number == place:
            result.append(_joined(walk, axes, [walk.shape(name)[place] for name in node.input]))
            continue
        for axis in axes[1:]:
            walk.labels.tie(axes[0], axis)
        result.append(None if any(axis is None for axis in axes) else axes[0])
    return [result]


def _joined(walk: Walk, axes: Axes, sizes: list[Size]) -> Axis:
    """Axes one after the other; those that may not shrink get labels that stay."""
    parts = []
    for axis, size in zip(axes, sizes, strict=True):
        if axis is None and not isinstance(size, int):
            for each in axes:
                walk.labels.freeze(each)
            return None
        parts.append(walk.labels.fresh(int(size or 0)) if axis is None else axis)
        if axis is None:
            walk.labels.freeze(parts[-1])
    return np.concatenate(parts)


def split(walk: Walk, node: Any) -> list[Axes]:
    x = walk.of(node.input[0])
    place = attribute(node, "axis", 0) % len(x)
    if x[place] is None:
        return [list(x) for _ in node.output]
    ends = np.cumsum([walk.shape(name)[place] for name in node.output])
    if int(ends[-1]) != len(x[place]):
        raise Unfit("parts of unknown size")
    walk.splits.append(node)
    return [[*x[:place], part, *x[place + 1 :]] for part in np.split(x[place], ends[:-1])]


def reshape(walk: Walk, node: Any) -> list[Axes]:
    """Also adjusts the stored shape later: an entry of it may be the number of channels."""
    if attribute(node, "allowzero", 0):
        raise Unfit("zero means zero")
    result = regroup(walk, node)
    before, after = walk.shape(node.input[0]), walk.shape(node.output[0])
    # -1 says at most one open dimension, 0 copies the one in the same place.
    entries: list[Size] = [
        0 if not isinstance(size, int) and place < len(before) and size is not None and before[place] == size else size
        for place, size in enumerate(after)
    ]
    if sum(not isinstance(size, int) for size in entries) > 1:
        raise Unfit("more than one open dimension")
    walk.reshapes.append((node, [size if isinstance(size, int) else -1 for size in entries]))
    return result


def regroup(walk: Walk, node: Any) -> list[Axes]:
    """Reshape, Flatten, Squeeze, Unsqueeze: stretches of axes with equally many entries answer each other.

    Several axes into one: a channel spreads to all its entries there. One into several: it must be the first of them,
    and its entries leave together (the heads of attention)."""
    x = walk.of(node.input[0])
    before, after = _numbers(walk.shape(node.input[0]), walk.shape(node.output[0]))
    result: Axes = [None] * len(after)
    for old, new in _stretches(before, after):
        old, new = [p for p in old if before[p] != 1], [p for p in new if after[p] != 1]
        labelled = [place for place in old if x[place] is not None]
        sizes = [before[place] for place in old]
        if len(old) == len(new) == 1:
            result[new[0]] = x[old[0]]
        elif len(new) == 1 and len(labelled) == 1 and _OPEN not in sizes:
            result[new[0]] = spread(x[labelled[0]], sizes, old.index(labelled[0]))
        elif len(old) == 1 and labelled and _OPEN not in [after[place] for place in new]:
            rows = x[old[0]].reshape(after[new[0]], -1)
            for column in range(1, rows.shape[1]):
                walk.labels.tie(rows[:, 0], rows[:, column])
            result[new[0]] = rows[:, 0]
        else:
            for place in labelled:
                walk.labels.freeze(x[place])
    return [result]


def _numbers(before: list[Size], after: list[Size]) -> tuple[list[int], list[int]]:
    """Both shapes with a number for the one open dimension that they share. Unfit where there are more."""
    opens = [sum(not isinstance(size, int) for size in shape) for shape in (before, after)]
    if opens == [2, 2] and before[0] == after[0] and before[1] == after[1] and None not in before[:2]:
        # [batch, length, ...] stays in front; the two act as one.
        before, after, opens = [1, *before[1:]], [1, *after[1:]], [1, 1]
    known = [math.prod(size for size in shape if isinstance(size, int)) for shape in (before, after)]
    if opens not in ([0, 0], [1, 1]) or known[0] != known[1] or 0 in known:
        raise Unfit("open dimensions that cannot be matched")
    first, second = ([size if isinstance(size, int) else _OPEN for size in shape] for shape in (before, after))
    return first, second


def _stretches(before: list[int], after: list[int]) -> list[tuple[list[int], list[int]]]:
    """Places of both shapes, cut wherever the products so far are equal."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        old, new, left, right = [i], [j], before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left *= before[i]
                old.append(i)
                i += 1
            else:
                right *= after[j]
                new.append(j)
                j += 1
        found.append((old, new))
    return found


def cut(walk: Walk, node: Any) -> list[Axes]:
    """Slice: the axes it cuts stay as they are."""
    rank = len(walk.of(node.input[0]))
    if walk.opset < 10:
        starts, places = attribute(node, "starts", []), attribute(node, "axes")
    else:
        starts = walk.constant(node.input[1])
        places = walk.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None
    return [frozen_at(walk, node.input[0], list(range(min(len(starts), rank))) if places is None else places)]


def gather(walk: Walk, node: Any) -> list[Axes]:
    """Picks along one axis, which stays; an embedding's other axis may shrink."""
    rank = len(walk.of(node.input[0]))
    place = attribute(node, "axis", 0) % rank
    axes = frozen_at(walk, node.input[0], [place])
    return [[*axes[:place], *[None] * len(walk.shape(node.input[1])), *axes[place + 1 :]]]


def pad(walk: Walk, node: Any) -> list[Axes]:
    if len(node.input) > 3 and node.input[3]:
        raise Unfit("padded axes by name")
    amounts = attribute(node, "pads") if walk.opset < 11 else walk.constant(node.input[1])
    rank = len(walk.of(node.input[0]))
    return [frozen_at(walk, node.input[0], [p for p in range(rank) if amounts[p] or amounts[p + rank]])]


def reduce(walk: Walk, node: Any) -> list[Axes]:
    """ReduceMean and the like: what is reduced stays."""
    places = attribute(node, "axes")
    if places is None and len(node.input) > 1 and node.input[1]:
        places = walk.constant(node.input[1])
    rank = len(walk.of(node.input[0]))
    if not places:
        places = [] if attribute(node, "noop_with_empty_axes", 0) else list(range(rank))
    axes = frozen_at(walk, node.input[0], places)
    if attribute(node, "keepdims", 1):
        return [axes]
    gone = {place % rank for place in places}
    return [[axis for place, axis in enumerate(axes) if place not in gone]]


def resize(walk: Walk, node: Any) -> list[Axes]:
    """Scales are numbers; sizes would have to be adjusted, and are usually computed."""
    scales = node.input[2] if walk.opset >= 11 else node.input[1]
    if attribute(node, "axes") or (len(node.input) > 3 and node.input[3]) or not scales:
        raise Unfit("sizes in place of scales")
    numbers = walk.constant(scales)
    return [frozen_at(walk, node.input[0], [place for place, each in enumerate(numbers) if each != 1])]


def shape(walk: Walk, node: Any) -> list[Axes]:
    """The sizes that somebody reads stay: they may scale or cut something."""
    axes = walk.of(node.input[0])
    places: set[int] | None = set()
    if attribute(node, "start", 0) or attribute(node, "end") is not None:
        places = None
    for reader in walk.readers.get(node.output[0], []):
        fits = reader.op_type == "Gather" and reader.input[1] in walk.stored and places is not None
        places = (
            places | {int(each) for each in walk.constant(reader.input[1])} if fits and places is not None else None
        )
        if places is None:
            break
    # A size that is itself an output of the graph stays too.
    if places is None or any(each.name == node.output[0] for each in walk.graph.output):
        places = set(range(len(axes)))
    if axes:
        frozen_at(walk, node.input[0], list(places))
    return [[None]]
