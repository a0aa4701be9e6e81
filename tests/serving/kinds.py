"""Models whose inputs and outputs are not all plain required tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

_info = h.make_tensor_value_info


def _model(
    nodes: list, inputs: list, outputs: list, constants: list | None = None, domain: str = ""
) -> onnx.ModelProto:
    opsets = [h.make_opsetid("", 18)] + ([h.make_opsetid(domain, 3)] if domain else [])
    return h.make_model(h.make_graph(nodes, "g", inputs, outputs, constants or []), opset_imports=opsets, ir_version=9)


def with_default() -> onnx.ModelProto:
    """x FP32 [N] + b FP32 [1] (1 unless given) -> y."""
    return _model(
        [h.make_node("Add", ["x", "b"], ["y"])],
        [_info("x", T.FLOAT, ["N"]), _info("b", T.FLOAT, [1])],
        [_info("y", T.FLOAT, ["N"])],
        [nh.from_array(np.ones(1, np.float32), "b")],
    )


def with_optional() -> onnx.ModelProto:
    """y is the optional o where given, else x."""
    given = h.make_graph([h.make_node("OptionalGetElement", ["o"], ["t"])], "a", [], [_info("t", T.FLOAT, ["N"])])
    absent = h.make_graph([h.make_node("Identity", ["x"], ["e"])], "b", [], [_info("e", T.FLOAT, ["N"])])
    kind = h.make_optional_type_proto(h.make_tensor_type_proto(T.FLOAT, ["N"]))
    return _model(
        [
            h.make_node("OptionalHasElement", ["o"], ["c"]),
            h.make_node("If", ["c"], ["y"], then_branch=given, else_branch=absent),
        ],
        [_info("x", T.FLOAT, ["N"]), h.make_value_info("o", kind)],
        [_info("y", T.FLOAT, ["N"])],
    )


def sequence_out() -> onnx.ModelProto:
    """x FP32 [N,2] -> s, the sequence of its rows."""
    return _model(
        [h.make_node("SplitToSequence", ["x"], ["s"], axis=0, keepdims=0)],
        [_info("x", T.FLOAT, ["N", 2])],
        [h.make_tensor_sequence_value_info("s", T.FLOAT, None)],
    )


def sequence_in() -> onnx.ModelProto:
    """s, a sequence of FP32 [2] -> y, all behind one another."""
    return _model(
        [h.make_node("ConcatFromSequence", ["s"], ["y"], axis=0)],
        [h.make_tensor_sequence_value_info("s", T.FLOAT, None)],
        [_info("y", T.FLOAT, None)],
    )


def zipmap() -> onnx.ModelProto:
    """p FP32 [N,2] -> m, a sequence of maps from class to probability."""
    maps = h.make_sequence_type_proto(h.make_map_type_proto(T.INT64, h.make_tensor_type_proto(T.FLOAT, [])))
    return _model(
        [
            h.make_node("Identity", ["p"], ["q"]),
            h.make_node("ZipMap", ["q"], ["m"], domain="ai.onnx.ml", classlabels_int64s=[3, 7]),
        ],
        [_info("p", T.FLOAT, ["N", 2])],
        [h.make_value_info("m", maps)],
        domain="ai.onnx.ml",
    )


def stateful() -> onnx.ModelProto:
    """A running sum: x, state -> y = x + state, state_out = y."""
    return _model(
        [h.make_node("Add", ["x", "state"], ["y"]), h.make_node("Identity", ["y"], ["state_out"])],
        [_info("x", T.FLOAT, [1]), _info("state", T.FLOAT, [1])],
        [_info("y", T.FLOAT, [1]), _info("state_out", T.FLOAT, [1])],
    )


def bfloat16() -> onnx.ModelProto:
    """x BF16 [N] -> y, and z its FP32."""
    return _model(
        [h.make_node("Identity", ["x"], ["y"]), h.make_node("Cast", ["x"], ["z"], to=T.FLOAT)],
        [_info("x", T.BFLOAT16, ["N"])],
        [_info("y", T.BFLOAT16, ["N"]), _info("z", T.FLOAT, ["N"])],
    )


def mlp(layers: int = 4, width: int = 512) -> onnx.ModelProto:
    """x FP32 [N,width] -> y: weights dominate, so that many rows cost little more than one."""
    rng = np.random.default_rng(0)
    nodes, constants, at = [], [], "x"
    for i in range(layers):
        weights = (rng.normal(size=(width, width)) / width**0.5).astype(np.float32)
        constants.append(nh.from_array(weights, f"w{i}"))
        nodes += [h.make_node("MatMul", [at, f"w{i}"], [f"m{i}"]), h.make_node("Tanh", [f"m{i}"], [f"t{i}"])]
        at = f"t{i}"
    nodes.append(h.make_node("Identity", [at], ["y"]))
    return _model(nodes, [_info("x", T.FLOAT, ["N", width])], [_info("y", T.FLOAT, ["N", width])], constants)


def centered() -> onnx.ModelProto:
    """y = x minus the mean over the rows: what one row gives depends on its neighbours. Made slow enough."""
    big = np.eye(512, dtype=np.float32)
    nodes = [h.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=1), h.make_node("Sub", ["x", "m"], ["d0"])]
    nodes += [h.make_node("MatMul", [f"d{i}", "w"], [f"d{i + 1}"]) for i in range(4)]
    nodes.append(h.make_node("Identity", ["d4"], ["y"]))
    return _model(
        nodes,
        [_info("x", T.FLOAT, ["N", 512])],
        [_info("y", T.FLOAT, ["N", 512])],
        [nh.from_array(big, "w"), nh.from_array(np.array([0], np.int64), "axes")],
    )


ALL = {
    "default": with_default, "optional": with_optional, "sequence-out": sequence_out, "sequence-in": sequence_in,
    "zipmap": zipmap, "stateful": stateful, "bf16": bfloat16, "mlp": mlp, "centered": centered,
}  # fmt: skip


def write_all(folder: Path) -> None:
    """All of them as files of a standalone folder, and `external`, whose weights lie in a file beside it."""
    for name, make in ALL.items():
        (folder / f"{name}.onnx").write_bytes(make().SerializeToString())
    beside = folder / "external" / "1"
    beside.mkdir(parents=True)
    onnx.save_model(
        mlp(1, 64), beside / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
