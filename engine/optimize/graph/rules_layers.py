"""How labels pass operators that have weights, or work on each channel by itself."""

from __future__ import annotations

from typing import Any

from engine.optimize.graph.labels import Axes, Axis
from engine.optimize.graph.walk import Layer, Unfit, Walk, attribute


def same(walk: Walk, node: Any) -> list[Axes]:
    """An operator on each number of its first input."""
    return [walk.of(node.input[0])] * len(node.output)


def elementwise(walk: Walk, node: Any) -> list[Axes]:
    return [walk.broadcast([name for name in node.input if name])]


def conv(walk: Walk, node: Any) -> list[Axes]:
    """Weights [out, in / groups, ...]. Depthwise: outputs leave with their input. Otherwise grouped: the same places
    of all groups leave together, since groups must stay equally large."""
    x, weight, groups = walk.of(node.input[0]), walk.weight(node.input[1]), attribute(node, "group", 1)
    out, labels = weight[0], walk.labels
    dims = walk.stored[node.input[1]].dims
    if groups == 1:
        labels.tie(x[1], weight[1])
    elif dims[1] == 1:
        labels.tie(None if x[1] is None else x[1].repeat(dims[0] // groups), out)
        walk.depthwise.append(node)
    else:
        for channels, per in ((x[1], dims[1]), (out, dims[0] // groups)):
            for group in range(1, groups) if channels is not None else ():
                labels.tie(channels[:per], channels[group * per : (group + 1) * per])
        labels.tie(None if x[1] is None else x[1][: dims[1]], weight[1])
    _bias(walk, node, out)
    if groups == 1 or dims[1] > 1:
        walk.layers.append(Layer(node, node.input[0], node.output[0], node.input[1], 1, 0, 1, 1, groups))
    return [[x[0], out, *[None] * (len(x) - 2)]]


def conv_transpose(walk: Walk, node: Any) -> list[Axes]:
    """Weights [in, out, ...]."""
    x, weight = walk.of(node.input[0]), walk.weight(node.input[1])
    if attribute(node, "group", 1) != 1:
        raise Unfit("a grouped transposed convolution")
    walk.labels.tie(x[1], weight[0])
    _bias(walk, node, weight[1])
    walk.layers.append(Layer(node, node.input[0], node.output[0], node.input[1], 0, 1, 1, 1))
    return [[x[0], weight[1], *[None] * (len(x) - 2)]]


def _bias(walk: Walk, node: Any, out: Axis) -> None:
    if len(node.input) > 2 and node.input[2]:
        walk.labels.tie(out, walk.of(node.input[2])[0])


def gemm(walk: Walk, node: Any) -> list[Axes]:
    x, weight = walk.of(node.input[0]), walk.weight(node.input[1])
    if attribute(node, "transA", 0):
        raise Unfit("a transposed input")
    inner, outer = (1, 0) if attribute(node, "transB", 0) else (0, 1)
    walk.labels.tie(x[1], weight[inner])
    if len(node.input) > 2 and node.input[2]:
        bias, size = walk.of(node.input[2]), walk.shape(node.input[2])
        if len(bias) > 1 and size[0] != 1:
            raise Unfit("a bias for each row")
        if bias and size[-1] != 1:
            walk.labels.tie(weight[outer], bias[-1])
    walk.layers.append(Layer(node, node.input[0], node.output[0], node.input[1], inner, outer, 1, 1))
    return [[x[0], weight[outer]]]


def matmul(walk: Walk, node: Any) -> list[Axes]:
    """With a stored matrix on the right it is a layer; of two computed operands (attention) the axes that are summed
    over stay, and the leading ones are tied."""
    a, b = walk.of(node.input[0]), walk.of(node.input[1])
    if len(a) < 2 or len(b) < 2:
        raise Unfit("a product with a vector")
    if node.input[1] in walk.stored and len(b) == 2 and node.input[0] not in walk.stored:
        walk.labels.tie(a[-1], b[0])
        last = len(a) - 1
        walk.layers.append(Layer(node, node.input[0], node.output[0], node.input[1], 0, 1, last, last))
        return [[*a[:-1], b[1]]]
    if len(a) != len(b) or any(name in walk.stored for name in node.input):
        raise Unfit("a product of operands of unlike ranks")
    walk.labels.freeze(a[-1])
    walk.labels.freeze(b[-2])
    leading: Axes = []
    sizes = zip(a[:-2], b[:-2], walk.shape(node.input[0]), walk.shape(node.input[1]), strict=False)
    for left, right, left_size, right_size in sizes:
        if left_size != 1 and right_size != 1:
            walk.labels.tie(left, right)
        leading.append(right if left_size == 1 else left)
        if left is None or right is None:
            leading[-1] = None if left_size != 1 and right_size != 1 else leading[-1]
    return [[*leading, a[-2], b[-1]]]


def batch_norm(walk: Walk, node: Any) -> list[Axes]:
    if attribute(node, "training_mode", 0) or len(node.output) > 1:
        raise Unfit("normalisation in training mode")
    return channel_norm(walk, node)


def channel_norm(walk: Walk, node: Any) -> list[Axes]:
    """Statistics of each channel by itself; the other inputs hold one number for each channel."""
    x = walk.of(node.input[0])
    for name in node.input[1:]:
        walk.labels.tie(x[1], walk.of(name)[0])
    return [[x[0], x[1], *[None] * (len(x) - 2)]]


def pool(walk: Walk, node: Any) -> list[Axes]:
    if len([name for name in node.output if name]) > 1:
        raise Unfit("indices of maxima")
    x = walk.of(node.input[0])
    return [[x[0], x[1], *[None] * (len(x) - 2)]]


def layer_norm(walk: Walk, node: Any) -> list[Axes]:
    """Statistics over all channels change with every channel that leaves, so these stay."""
    return [frozen_from(walk, node.input[0], attribute(node, "axis", -1)), *[[]] * (len(node.output) - 1)]


def softmax(walk: Walk, node: Any) -> list[Axes]:
    """Before opset 13 it works over all axes from `axis` on."""
    axis = attribute(node, "axis", -1 if walk.opset >= 13 else 1)
    if walk.opset < 13:
        return [frozen_from(walk, node.input[0], axis)]
    return [frozen_at(walk, node.input[0], [axis])]


def frozen_from(walk: Walk, name: str, start: int) -> Axes:
    rank = len(walk.of(name))
    return frozen_at(walk, name, list(range(start % rank, rank)))


def frozen_at(walk: Walk, name: str, places: list[int]) -> Axes:
    """Its axes, those at `places` frozen."""
    axes = list(walk.of(name))
    for place in {place % len(axes) for place in places}:
        walk.labels.freeze(axes[place])
        axes[place] = None
    return axes
