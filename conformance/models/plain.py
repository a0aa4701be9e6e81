"""Models that any runtime can serve: identities, arithmetic, a classifier, a slow one, a fragile one."""

from __future__ import annotations

import numpy as np

from conformance.models.build import Shape, T, constant, floats, graph, info, model, node

KINDS: dict[str, int] = {
    "BOOL": T.BOOL,
    "INT8": T.INT8,
    "INT16": T.INT16,
    "INT32": T.INT32,
    "INT64": T.INT64,
    "UINT8": T.UINT8,
    "UINT16": T.UINT16,
    "UINT32": T.UINT32,
    "UINT64": T.UINT64,
    "FP16": T.FLOAT16,
    "FP32": T.FLOAT,
    "FP64": T.DOUBLE,
    "BYTES": T.STRING,
    "BF16": T.BFLOAT16,
}
TABLE = (10.0, 20.0, 30.0)
CLASSIFIER = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], np.float32)


def identity(kind: int, shape: Shape) -> bytes:
    """x -> y, unchanged."""
    return model([node("Identity", ["x"], ["y"])], [info("x", kind, shape)], [info("y", kind, shape)])


def classifier() -> bytes:
    """x FP32 [N,4] -> label INT64 [N], scores FP32 [N,3]: the scores are the first three columns."""
    return model(
        [
            node("MatMul", ["x", "w"], ["scores"]),
            node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        [info("x", T.FLOAT, ["N", 4])],
        [info("label", T.INT64, ["N"]), info("scores", T.FLOAT, ["N", 3])],
        [constant("w", CLASSIFIER)],
    )


def add_sub() -> bytes:
    """a INT32 [N,2], b FP32 [N,2] -> sum FP32 [N,2], diff INT32 [N,2]."""
    return model(
        [
            node("Cast", ["a"], ["a_float"], to=T.FLOAT),
            node("Cast", ["b"], ["b_int"], to=T.INT32),
            node("Add", ["a_float", "b"], ["sum"]),
            node("Sub", ["a", "b_int"], ["diff"]),
        ],
        [info("a", T.INT32, ["N", 2]), info("b", T.FLOAT, ["N", 2])],
        [info("sum", T.FLOAT, ["N", 2]), info("diff", T.INT32, ["N", 2])],
    )


def empty() -> bytes:
    """x FP32 [N,4] -> y FP32 [N,4], total FP32 []: takes no rows at all as well."""
    return model(
        [node("Identity", ["x"], ["y"]), node("ReduceSum", ["x"], ["total"], keepdims=0)],
        [info("x", T.FLOAT, ["N", 4])],
        [info("y", T.FLOAT, ["N", 4]), info("total", T.FLOAT, [])],
    )


def scalar() -> bytes:
    """x FP32 [] -> y FP32 []: twice the number."""
    return model(
        [node("Add", ["x", "x"], ["y"])],
        [info("x", T.FLOAT, [])],
        [info("y", T.FLOAT, [])],
    )


def infinite() -> bytes:
    """x FP32 [N] -> y FP32 [N]: 1/x, so that JSON input reaches infinity; 0 times that is NaN."""
    return model(
        [node("Reciprocal", ["x"], ["y"]), node("Mul", ["x", "y"], ["z"])],
        [info("x", T.FLOAT, ["N"])],
        [info("y", T.FLOAT, ["N"]), info("z", T.FLOAT, ["N"])],
    )


def version(number: int) -> bytes:
    """x FP32 [N] -> y FP32 [1]: always the number of the version."""
    return model(
        [
            node("ReduceSum", ["x"], ["s"], keepdims=0),
            node("Mul", ["s", "zero"], ["nothing"]),
            node("Add", ["nothing", "number"], ["y"]),
        ],
        [info("x", T.FLOAT, ["N"])],
        [info("y", T.FLOAT, [1])],
        [floats("zero", 0), floats("number", number)],
    )


def fragile() -> bytes:
    """i INT64 [N] -> y FP32 [N]: a table of three; any other index fails inside the model."""
    return model(
        [node("Gather", ["table", "i"], ["y"])],
        [info("i", T.INT64, ["N"])],
        [info("y", T.FLOAT, ["N"])],
        [floats("table", *TABLE)],
    )


def slow(rounds: int = 650) -> bytes:
    """x FP32 [N] -> y FP32 [N], unchanged, after about 50 ms of matrix products."""
    size = 160
    body = graph(
        [node("MatMul", ["m_in", "big"], ["m_out"]), node("Identity", ["go_in"], ["go_out"])],
        [info("i", T.INT64, []), info("go_in", T.BOOL, []), info("m_in", T.FLOAT, [size, size])],
        [info("go_out", T.BOOL, []), info("m_out", T.FLOAT, [size, size])],
    )
    return model(
        [
            node("Loop", ["rounds", "", "big"], ["last"], body=body),
            node("ReduceSum", ["last"], ["total"], keepdims=0),
            node("Mul", ["total", "zero"], ["nothing"]),
            node("Add", ["x", "nothing"], ["y"]),
        ],
        [info("x", T.FLOAT, ["N"])],
        [info("y", T.FLOAT, ["N"])],
        [
            constant("rounds", np.array(rounds, np.int64)),
            constant("big", np.eye(size, dtype=np.float32)),
            floats("zero", 0),
        ],
    )
