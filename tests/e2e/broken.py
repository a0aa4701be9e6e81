"""A candidate that passes every check before traffic and fails with real rows."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def failing_twin(content: bytes) -> bytes:
    """The same model with the same signature, in front of it a shape that only zeros fit.

    The largest sum of a row is added to the width that the rows are given: loading and warming with zeros
    work, any image that is not black is an error of the runtime.
    """
    model = onnx.load_from_string(content)
    graph, name = model.graph, model.graph.input[0].name
    for node in graph.node:
        for index, used in enumerate(node.input):
            if used == name:
                node.input[index] = "checked_rows"
    constants = {
        "all_ones": np.ones((64, 1), np.float32),
        "any_rows": np.array([-1], np.int64),
        "width": np.array([64], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    front = [
        helper.make_node("MatMul", [name, "all_ones"], ["row_sums"]),
        helper.make_node("Cast", ["row_sums"], ["whole_sums"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["whole_sums"], ["largest"], keepdims=0),
        helper.make_node("Add", ["width", "largest"], ["given_width"]),
        helper.make_node("Concat", ["any_rows", "given_width"], ["given_shape"], axis=0),
        helper.make_node("Reshape", [name, "given_shape"], ["checked_rows"]),
    ]
    nodes = [*front, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
