"""Which stored tensors of a graph are weights that learn."""

from __future__ import annotations

from collections import Counter
from typing import Any

# Inputs of operators where a stored tensor is a weight. Elsewhere it is a constant: a limit, a padding, a size, the
# mean and deviation that an input is normalized with.
_WEIGHTS = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "BatchNormalization": (1, 2), "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2), "Gemm": (0, 1, 2), "MatMul": (0, 1), "Add": (0, 1), "Mul": (0, 1), "PRelu": (1,),
    "Gather": (0,), "Einsum": (0, 1), "Concat": (0, 1), "Expand": (0,),
}  # fmt: skip
# Through these a weight passes on its way to where it is used.
_PASSING = {"Reshape", "Transpose", "Identity", "Cast", "Squeeze", "Unsqueeze"}
_FLOATS = {1, 11}  # TensorProto.FLOAT, DOUBLE
_STATISTICS = (3, 4)


def stored(graph: Any) -> dict[str, Any]:
    """{name: TensorProto} of initializers and Constant nodes, as they lie in the graph."""
    found = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found |= {name: each.t for name in node.output for each in node.attribute if each.name == "value"}
    return found


def unshare(graph: Any) -> None:
    """Gives each BatchNormalization tensors of its own: exporters store equal ones (zeros, ones) once, and training
    makes them differ."""
    uses = Counter(name for node in graph.node for name in node.input)
    initializers = {each.name: each for each in graph.initializer}
    for number, node in enumerate(graph.node):
        if node.op_type != "BatchNormalization":
            continue
        for place in range(1, len(node.input)):
            name = node.input[place]
            if uses[name] > 1 and name in initializers:
                copy = graph.initializer.add()
                copy.CopyFrom(initializers[name])
                copy.name = f"{name}_of_{number}_{place}"
                node.input[place] = copy.name
                uses[name] -= 1


def learnable(nodes: list[Any], tensors: dict[str, Any]) -> set[str]:
    """Names of stored floats at the places of weights; numbers without a dimension are constants."""
    found: set[str] = set()
    passing = {node.input[0]: node.output[0] for node in nodes if node.op_type in _PASSING}
    places: dict[str, set[tuple[str, int]]] = {}
    for node in nodes:
        for place, name in enumerate(node.input):
            places.setdefault(name, set()).add((node.op_type, place))
    for name, tensor in tensors.items():
        if tensor.data_type not in _FLOATS:
            continue
        end, steps = name, 0
        while end in passing and len(places[end]) == 1 and steps < 8:
            end, steps = passing[end], steps + 1
        single = not tensor.dims
        for kind, place in places.get(end, ()):
            if place in _WEIGHTS.get(kind, ()) and not (single and kind in ("Add", "Mul", "Concat")):
                found.add(name)
    statistics = {node.input[place] for node in nodes if node.op_type == "BatchNormalization" for place in _STATISTICS}
    return found - statistics
