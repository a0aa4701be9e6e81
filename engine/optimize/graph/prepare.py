"""A model as the walk wants it: constants stored, shapes known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import numpy_helper, shape_inference

from engine.optimize.graph.walk import Size

# Operators of ai.onnx.ml that give floats in the shape of what they read; shape inference does not know them.
_SHAPED = {"Scaler", "Normalizer", "Imputer", "Binarizer"}


def prepared(model: Any) -> Any:
    """A copy whose Constant nodes are initializers, whose weights are read without Identity in between, and are no
    inputs: before IR version 4 they had to be listed as such."""
    result = type(model)()
    result.CopyFrom(model)
    graph = result.graph
    kept = []
    for node in graph.node:
        constant = node.op_type == "Constant" and node.domain in ("", "ai.onnx")
        tensor = _tensor(node) if constant else None
        if tensor is None:
            kept.append(type(node).FromString(node.SerializeToString()))
        else:
            graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(kept)
    stored = {each.name for each in graph.initializer}
    if result.ir_version < 4:
        for each in [each for each in graph.input if each.name in stored]:
            graph.input.remove(each)
        result.ir_version = 4
    same: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in stored | same.keys():
            same[node.output[0]] = same.get(node.input[0], node.input[0])
    for node in graph.node:
        if node.op_type != "Identity":
            node.input[:] = [same.get(name, name) for name in node.input]
    return result


def _tensor(node: Any) -> Any:
    """The TensorProto of a Constant node; None for texts and sparse values."""
    value = node.attribute[0]
    if value.name == "value":
        tensor = type(value.t)()
        tensor.CopyFrom(value.t)
        tensor.name = node.output[0]
        return tensor
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if value.name not in kinds:
        return None
    number = {"value_float": value.f, "value_floats": list(value.floats), "value_int": value.i}
    content = number.get(value.name, list(value.ints))
    return numpy_helper.from_array(np.array(content, dtype=kinds[value.name]), node.output[0])


def known_shapes(model: Any) -> dict[str, list[Size]]:
    """Shapes of all tensors that shape inference finds, those behind scalers of scikit-learn included."""
    shapes: dict[str, list[Size]] = {}
    while True:
        inferred = shape_inference.infer_shapes(model, data_prop=True)
        shapes = dict(_shapes(inferred.graph))
        added = False
        for node in model.graph.node:
            if node.op_type in _SHAPED and node.output[0] not in shapes and node.input[0] in shapes:
                value = model.graph.value_info.add(name=node.output[0])
                value.type.tensor_type.elem_type = 1
                for size in shapes[node.input[0]]:
                    dim = value.type.tensor_type.shape.dim.add()
                    if isinstance(size, int):
                        dim.dim_value = size
                    elif size is not None:
                        dim.dim_param = size
                added = True
        if not added:
            return shapes


def _shapes(graph: Any) -> Iterator[tuple[str, list[Size]]]:
    for value in [*graph.input, *graph.output, *graph.value_info]:
        kind = value.type.tensor_type
        if value.type.WhichOneof("value") == "tensor_type" and kind.HasField("shape"):
            yield value.name, [_size(dim) for dim in kind.shape.dim]


def _size(dim: Any) -> Size:
    kind = dim.WhichOneof("value")
    return dim.dim_value if kind == "dim_value" else (dim.dim_param or None)
