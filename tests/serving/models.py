"""Tiny real ONNX models, and the shapes of requests for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto as T
from onnx import helper
from onnx import numpy_helper as nh


def _model(nodes: list, inputs: list, outputs: list, constants: list | None = None) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants or [])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


def info(name: str, kind: int, shape: list) -> object:
    return helper.make_tensor_value_info(name, kind, shape)


def classifier(seed: int = 0) -> bytes:
    """x FP32 [N,4] -> label INT64 [N], scores FP32 [N,3]."""
    weights = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
    return _model(
        [
            helper.make_node("MatMul", ["x", "w"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        [info("x", T.FLOAT, ["N", 4])],
        [info("label", T.INT64, ["N"]), info("scores", T.FLOAT, ["N", 3])],
        [nh.from_array(weights, "w")],
    )


def constant(value: float) -> bytes:
    """x FP32 [N,4] -> y FP32 [1]: always `value`, which tells versions apart."""
    return _model(
        [
            helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
            helper.make_node("Mul", ["s", "zero"], ["z"]),
            helper.make_node("Add", ["z", "value"], ["y"]),
        ],
        [info("x", T.FLOAT, ["N", 4])],
        [info("y", T.FLOAT, [1])],
        [
            nh.from_array(np.zeros(1, np.float32), "zero"),
            nh.from_array(np.full(1, value, np.float32), "value"),
        ],
    )


def identity(kind: int, shape: list) -> bytes:
    """x -> y unchanged."""
    return _model([helper.make_node("Identity", ["x"], ["y"])], [info("x", kind, shape)], [info("y", kind, shape)])


def slow(rounds: int = 3000) -> bytes:
    """x FP32 [N,4] -> y FP32 [N,4] after a long loop of matrix products."""
    size = 160
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m_in", "big"], ["m_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", T.INT64, []),
            helper.make_tensor_value_info("go_in", T.BOOL, []),
            helper.make_tensor_value_info("m_in", T.FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("go_out", T.BOOL, []),
            helper.make_tensor_value_info("m_out", T.FLOAT, [size, size]),
        ],
    )
    big = np.eye(size, dtype=np.float32)
    return _model(
        [
            helper.make_node("Loop", ["rounds", "", "big"], ["last"], body=body),
            helper.make_node("ReduceSum", ["last"], ["total"], keepdims=0),
            helper.make_node("Mul", ["total", "zero"], ["nothing"]),
            helper.make_node("Add", ["x", "nothing"], ["y"]),
        ],
        [info("x", T.FLOAT, ["N", 4])],
        [info("y", T.FLOAT, ["N", 4])],
        [
            nh.from_array(np.array(rounds, np.int64), "rounds"),
            nh.from_array(big, "big"),
            nh.from_array(np.zeros(1, np.float32), "zero"),
        ],
    )


def hanging(above: float) -> bytes:
    """x FP32 [N,4] -> y FP32 [N,4]: at once while no value is above a limit, else after hours."""
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["m_in", "m_in"], ["m_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", T.INT64, []),
            helper.make_tensor_value_info("go_in", T.BOOL, []),
            helper.make_tensor_value_info("m_in", T.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_out", T.BOOL, []),
            helper.make_tensor_value_info("m_out", T.FLOAT, [1]),
        ],
    )
    return _model(
        [
            helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
            helper.make_node("Sub", ["top", "above"], ["excess"]),
            helper.make_node("Relu", ["excess"], ["more"]),
            helper.make_node("Mul", ["more", "many"], ["much"]),
            helper.make_node("Cast", ["much"], ["rounds"], to=T.INT64),
            helper.make_node("Loop", ["rounds", "", "zero"], ["last"], body=body),
            helper.make_node("Add", ["x", "last"], ["y"]),
        ],
        [info("x", T.FLOAT, ["N", 4])],
        [info("y", T.FLOAT, ["N", 4])],
        [
            nh.from_array(np.array(above, np.float32), "above"),
            nh.from_array(np.array(1e15, np.float32), "many"),
            nh.from_array(np.zeros(1, np.float32), "zero"),
        ],
    )


def failing() -> bytes:
    """x FP32 [N,4] -> never anything: four values do not make five."""
    return _model(
        [helper.make_node("Reshape", ["x", "five"], ["y"])],
        [info("x", T.FLOAT, ["N", 4])],
        [info("y", T.FLOAT, [5])],
        [nh.from_array(np.array([5], np.int64), "five")],
    )


def two_inputs() -> bytes:
    """a, b FP32 [N] -> sum FP32 [N]."""
    return _model(
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        [info("a", T.FLOAT, ["N"]), info("b", T.FLOAT, ["M"])],
        [info("sum", T.FLOAT, ["N"])],
    )


def lookup() -> bytes:
    """i INT64 [N] -> y FP32 [N]: a table of three; other indices fail inside the model."""
    return _model(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        [info("i", T.INT64, ["N"])],
        [info("y", T.FLOAT, ["N"])],
        [nh.from_array(np.array([10, 20, 30], np.float32), "table")],
    )


IDENTITIES = {
    "BOOL": (T.BOOL, np.bool_),
    "INT8": (T.INT8, np.int8),
    "INT16": (T.INT16, np.int16),
    "INT32": (T.INT32, np.int32),
    "INT64": (T.INT64, np.int64),
    "UINT8": (T.UINT8, np.uint8),
    "UINT16": (T.UINT16, np.uint16),
    "UINT32": (T.UINT32, np.uint32),
    "UINT64": (T.UINT64, np.uint64),
    "FP16": (T.FLOAT16, np.float16),
    "FP32": (T.FLOAT, np.float32),
    "FP64": (T.DOUBLE, np.float64),
    "BYTES": (T.STRING, np.object_),
}


def write_all(folder: Path) -> None:
    """The folder of the standalone server."""
    for name, (kind, _) in IDENTITIES.items():
        (folder / f"id-{name.lower()}.onnx").write_bytes(identity(kind, ["N", "M"]))
    (folder / "tiny.onnx").write_bytes(classifier())
    (folder / "two.onnx").write_bytes(two_inputs())
    (folder / "lookup.onnx").write_bytes(lookup())
    (folder / "slow.onnx").write_bytes(slow())
    (folder / "vector.onnx").write_bytes(identity(T.FLOAT, ["N"]))
    (folder / "broken.onnx").write_bytes(b"\x80\x04not a model")
    for version in ("1", "2", "10"):
        place = folder / "many" / version
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(constant(float(version)))


def rows(count: int = 1, name: str = "x") -> dict:
    """An FP32 [count,4] input."""
    return {"name": name, "shape": [count, 4], "datatype": "FP32", "data": [0.5] * (4 * count)}
