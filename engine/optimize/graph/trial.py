"""Changes to one layer of a graph that are taken back: what quantizing or pruning it would do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.optimize.graph.weights import Weight


def data_input(layer: Weight) -> str:
    """The name of the layer's input that is not its weight."""
    return str(next(name for name in layer.node.input[:2] if name != layer.name))


@contextmanager
def quantized(model: Any, layer: Weight, ranges: dict[str, tuple[float, float]], bits: int) -> Iterator[None]:
    """The layer as if it were quantized; as before afterwards."""
    import numpy as np

    values = layer.array()
    steps = 2 ** (bits - 1) - 1
    scale = float(np.abs(values).max()) / steps or 1.0
    name = data_input(layer)
    low, high = ranges[name]
    width = (high - low) / (2**bits - 1) or 1.0
    rounded = _rounding(f"{layer.node.name}/rounded", name, width, round(low / width), 2**bits - 1)
    index = list(layer.node.input).index(name)
    with _stored(layer, np.round(values / scale) * scale), _inserted(model, layer.node, index, rounded):
        yield


def _rounding(prefix: str, name: str, width: float, least: int, steps: int) -> tuple[list[Any], list[Any]]:
    """Nodes and constants for width * clip(round(x / width), least, least + steps)."""
    import numpy as np
    from onnx import helper, numpy_helper

    numbers = {"inverse": 1 / width, "least": least, "most": least + steps, "width": width}
    constants = [numpy_helper.from_array(np.array(v, np.float32), f"{prefix}/{k}") for k, v in numbers.items()]
    inverse, lower, upper, factor = (each.name for each in constants)
    chain = [("Mul", [inverse]), ("Round", []), ("Clip", [lower, upper]), ("Mul", [factor])]
    nodes, last = [], name
    for number, (kind, inputs) in enumerate(chain):
        output = f"{prefix}/{number}"
        nodes.append(helper.make_node(kind, [last, *inputs], [output], name=output))
        last = output
    return nodes, constants


@contextmanager
def pruned(model: Any, layer: Weight) -> Iterator[None]:
    """The layer with half of its output channels silent; as before afterwards."""
    import numpy as np
    from onnx import numpy_helper

    rows = np.moveaxis(layer.array().copy(), layer.axis, 0)
    norms = np.abs(rows).reshape(len(rows), -1).sum(axis=1)
    gone = np.argsort(norms, kind="stable")[: len(rows) // 2]
    rows[gone] = 0
    stored = {each.name: each for each in model.graph.initializer}
    bias = stored.get(layer.node.input[2]) if len(layer.node.input) > 2 else None
    with _stored(layer, np.moveaxis(rows, 0, layer.axis)):
        if bias is None or bias.dims[-1:] != [len(rows)]:
            yield
            return
        values = numpy_helper.to_array(bias).copy()
        values[..., gone] = 0
        with _stored(Weight(bias, 0, layer.node), values):
            yield


@contextmanager
def _stored(weight: Weight, values: Any) -> Iterator[None]:
    """Other values in an initializer, for a while."""
    import numpy as np
    from onnx import numpy_helper

    before = weight.tensor.SerializeToString()
    weight.tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), weight.name))
    try:
        yield
    finally:
        weight.tensor.ParseFromString(before)


@contextmanager
def _inserted(model: Any, node: Any, index: int, made: tuple[list[Any], list[Any]]) -> Iterator[None]:
    """Nodes (with their constants) in front of one input of a node, for a while."""
    nodes, constants = made
    graph, before = model.graph, node.input[index]
    place = next(i for i, each in enumerate(graph.node) if each.name == node.name)
    for each in reversed(nodes):
        graph.node.insert(place, each)
    graph.initializer.extend(constants)
    node.input[index] = nodes[-1].output[0]
    try:
        yield
    finally:
        node.input[index] = before
        del graph.node[place : place + len(nodes)], graph.initializer[-len(constants) :]
