"""A tiny ONNX classifier and a V2 request for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 4
CLASSES = 3


def classifier(seed: int, hidden: int = 16) -> bytes:
    """float32 `x` [n, 4] → int64 `label` [n] and float32 `scores` [n, 3]; another seed, another model."""
    random = np.random.default_rng(seed)
    constants = {
        "w1": random.normal(size=(FEATURES, hidden)).astype(np.float32),
        "b1": random.normal(size=hidden).astype(np.float32),
        "w2": random.normal(size=(hidden, CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h0"]),
        helper.make_node("Add", ["h0", "b1"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["h2"]),
        helper.make_node("MatMul", ["h2", "w2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def evaluation_csv(seed: int, rows: int = 60) -> bytes:
    """Rows with a header and the class in the last column."""
    random = np.random.default_rng(seed)
    lines = [",".join([*(f"f{index}" for index in range(FEATURES)), "target"])]
    lines += [
        ",".join([*(f"{value:.5f}" for value in row), str(int(random.integers(CLASSES)))])
        for row in random.normal(size=(rows, FEATURES))
    ]
    return ("\n".join(lines) + "\n").encode()


def first_row() -> dict[str, Any]:
    """A V2 request of one row."""
    return {"inputs": [{"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": [0.5, -1.0, 2.0, 0.25]}]}
