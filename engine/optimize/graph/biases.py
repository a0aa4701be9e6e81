"""Adds numbers to the bias of a layer, wherever the graph keeps it."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from engine.optimize.graph.walk import Layer, Unfit, attribute, uses


def bias_of(graph: Any, layer: Layer, count: int) -> Any:
    """What the node itself adds to each of its `count` output channels (count,). Unfit when that is computed or
    scaled."""
    node = node_of(graph, layer)
    if attribute(node, "beta", 1.0) != 1 or attribute(node, "alpha", 1.0) != 1:
        raise Unfit("a product that is scaled")
    if layer.node.op_type == "MatMul" or len(node.input) < 3 or not node.input[2]:
        return np.zeros(count)
    found = [each for each in graph.initializer if each.name == node.input[2]]
    if not found:
        raise Unfit("a bias that is computed")
    return np.broadcast_to(numpy_helper.to_array(found[0]).reshape(-1).astype(np.float64), (count,))


def add(graph: Any, layer: Layer, delta: Any) -> None:
    """Adds `delta` (channels,) to what a layer gives: to its own bias, to that of an Add behind it, or by a new Add."""
    node, stored = node_of(graph, layer), {each.name: each for each in graph.initializer}
    kind = numpy_helper.to_array(stored[node.input[1]]).dtype
    if node.op_type != "MatMul":
        try:
            total = bias_of(graph, layer, len(delta)) + delta
        except Unfit:
            _behind(graph, node, delta.astype(kind), layer.node.op_type == "Gemm")
            return
        name = _stored(graph, f"{node.output[0]}_bias", total.astype(kind))
        node.input[:] = [*node.input[:2], name]
        return
    readers = [each for each in graph.node if node.output[0] in each.input]
    if len(readers) == 1 and readers[0].op_type == "Add" and uses(graph)[node.output[0]] == 1:
        place = 1 - list(readers[0].input).index(node.output[0])
        old = stored.get(readers[0].input[place])
        if old is not None and list(old.dims) == [len(delta)]:
            total = numpy_helper.to_array(old).astype(np.float64) + delta
            readers[0].input[place] = _stored(graph, f"{node.output[0]}_bias", total.astype(kind))
            return
    _behind(graph, node, delta.astype(kind), True)


def scale(graph: Any, layer: Layer, factor: Any) -> None:
    """Multiplies the weights of each output channel (channels,); the bias stays."""
    array = numpy_helper.to_array(next(each for each in graph.initializer if each.name == layer.weight))
    shape = [1] * array.ndim
    shape[layer.out_axis] = -1
    replace(graph, layer.weight, array * factor.reshape(shape))


def _behind(graph: Any, node: Any, delta: Any, last: bool) -> None:
    """A new Add that gives the node's output under its old name; channels on the last axis, or on axis 1 of images."""
    taken = {name for each in graph.node for name in each.output} | {each.name for each in graph.initializer}
    whole, inner = node.output[0], f"{node.output[0]}_before_bias"
    while inner in taken:
        inner += "_"
    if not last:
        rank = len(next(each for each in graph.initializer if each.name == node.input[1]).dims)
        delta = delta.reshape(-1, *[1] * (rank - 2))
    name = _stored(graph, f"{whole}_bias", delta)
    place = next(number for number, each in enumerate(graph.node) if each.output and each.output[0] == whole)
    node.output[0] = inner
    graph.node.insert(place + 1, helper.make_node("Add", [inner, name], [whole]))


def node_of(graph: Any, layer: Layer) -> Any:
    """The layer's node in another version of its graph; an Add that came behind it has taken over its name."""
    names = [layer.y, *(each.input[0] for each in graph.node if layer.y in each.output and each.op_type == "Add")]
    return next(each for each in graph.node if each.output[0] in names and layer.weight in each.input)


def replace(graph: Any, name: str, array: Any) -> None:
    """Other numbers for a stored tensor of the same shape and type."""
    old = next(each for each in graph.initializer if each.name == name)
    old.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, dtype=numpy_helper.to_array(old).dtype), name))


def drop_unused(graph: Any) -> set[str]:
    """Removes stored tensors that nobody reads any more, and names them."""
    used = uses(graph)
    unused = [each for each in graph.initializer if not used[each.name]]
    for each in unused:
        graph.initializer.remove(each)
    return {each.name for each in unused}


def _stored(graph: Any, name: str, array: Any) -> str:
    taken = {each.name for each in graph.initializer} | {name for node in graph.node for name in node.output}
    while name in taken:
        name += "_"
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return name
