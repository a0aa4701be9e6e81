"""Tiny ONNX models for a table, an image and texts, and a V2 request for the first."""

from __future__ import annotations

import struct
import zlib
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


def image_means() -> bytes:
    """float32 `image` [n, 3, 32, 32] → float32 `means` [n, 3]: what a picture's red, green and blue come to."""
    node = helper.make_node("ReduceMean", ["image"], ["means"], axes=[2, 3], keepdims=0)
    return _model(
        [node],
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32]),
        helper.make_tensor_value_info("means", TensorProto.FLOAT, ["n", 3]),
    )


def mood() -> bytes:
    """BYTES `text` [n] → int64 `label` [n]: 1 for "good", 0 for "bad", 2 for all else."""
    node = helper.make_node(
        "LabelEncoder", ["text"], ["label"], domain="ai.onnx.ml", keys_strings=["good", "bad"], values_int64s=[1, 0],
        default_int64=2,
    )  # fmt: skip
    return _model(
        [node],
        helper.make_tensor_value_info("text", TensorProto.STRING, ["n"]),
        helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
    )


def _model(nodes: list[Any], taken: Any, given: Any) -> bytes:
    graph = helper.make_graph(nodes, "small", [taken], [given])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A picture of one colour."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    lines = (b"\0" + bytes(colour) * width) * height
    return b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", zlib.compress(lines)) + part(b"IEND", b"")
