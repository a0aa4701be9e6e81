"""Hostile ONNX files, made by code; each is (bytes, a word its refusal must hold)."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F = TensorProto.FLOAT


def value(name: str, shape: list[int | str | None] | None = None, kind: int = F) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["n", 2] if shape is None else shape)


def model(nodes: list[onnx.NodeProto], *, opset: int = 17, ir: int = 8, **graph: object) -> onnx.ModelProto:
    inputs = graph.pop("inputs", [value("x")])
    outputs = graph.pop("outputs", [value("y")])
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, **graph),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir,
    )


def relu(**more: object) -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], **more)


def _nested(depth: int) -> bytes:
    """If in If in If: built as bytes from the inside, since the library recurses."""

    def field(number: int, content: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(content)) + content

    node = field(1, b"c") + field(2, b"y") + field(4, b"If")
    graph = field(1, helper.make_node("Identity", ["x"], ["y"]).SerializeToString()) + field(2, b"g")
    for _ in range(depth):
        attribute = field(1, b"then_branch") + _varint(6 << 3 | 2) + _varint(len(graph)) + graph + b"\xa0\x01\x05"
        graph = field(1, node + field(5, attribute)) + field(2, b"g")
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _weight(name: str = "w", **changes: object) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.ones((2, 2), np.float32), name)
    for field, content in changes.items():
        if field == "dims":
            del tensor.dims[:]
            tensor.dims.extend(content)  # type: ignore[arg-type]
        else:
            setattr(tensor, field, content)
    return tensor


def _with_weight(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return model([helper.make_node("MatMul", ["x", "w"], ["y"])], initializer=[tensor])


def _external(location: str) -> bytes:
    tensor = _weight()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return _with_weight(tensor).SerializeToString()


def _external_in_constant() -> bytes:
    tensor = _weight()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    return model([node], outputs=[value("y", [2, 2])]).SerializeToString()


def _huge_constant() -> bytes:
    shape = numpy_helper.from_array(np.array([2**34], np.int64), "s")
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["y"])]
    return model(nodes, initializer=[shape], outputs=[value("y", [None])]).SerializeToString()


def _endless_loop(computed: bool = True, rounds: int = 2**60) -> bytes:
    """Rounds without end: written down, or computed by a node, which only running it tells."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("v")],
        [value("d", [], TensorProto.BOOL), value("w")],
    )
    trips = numpy_helper.from_array(np.array(rounds, np.int64), "m")
    go = numpy_helper.from_array(np.array(True), "k")
    nodes = [helper.make_node("Neg", ["m"], ["n"]), helper.make_node("Abs", ["n"], ["p"])]
    nodes += [helper.make_node("Loop", ["p" if computed else "m", "k", "x"], ["y"], body=body)]
    return model(nodes, initializer=[trips, go]).SerializeToString()


def _custom_domain() -> bytes:
    made = model([helper.make_node("Evil", ["x"], ["y"], domain="evil.ops")])
    made.opset_import.append(helper.make_opsetid("evil.ops", 1))
    return made.SerializeToString()


def _truncated() -> bytes:
    return _with_weight(_weight(raw_data=bytes(5000), dims=[25, 50])).SerializeToString()[:-900]


def _unknown_operator() -> bytes:
    return model([helper.make_node("Frobnicate", ["x"], ["y"])]).SerializeToString()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.onnx", b"x")
    return buffer.getvalue()


def _cycle() -> bytes:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return model([*nodes, helper.make_node("Relu", ["b"], ["y"])]).SerializeToString()


def _sequence_input() -> bytes:
    made = relu()
    made.graph.input[0].type.Clear()
    made.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = F
    return made.SerializeToString()


def _many_nodes() -> bytes:
    chain = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(100_001)]
    return model(chain, inputs=[value("v0")], outputs=[value("v100001")]).SerializeToString()


RANDOM = np.random.default_rng(7).bytes(5000)

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "random bytes": (lambda: RANDOM, "not an ONNX model"),
    "empty": (lambda: b"", "empty"),
    "text": (lambda: b"hello, this is no model at all", "not an ONNX model"),
    "truncated": (_truncated, "short"),
    "pickle": (lambda: pickle.dumps({"a": np.float32}), "pickle"),
    "old pickle": (lambda: b"cos\nsystem\n(S'true'\ntR.", "pickle"),
    "zip": (_zip, "zip archive"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(60), "gzip archive"),
    "numpy": (lambda: b"\x93NUMPY\x01\x00" + bytes(60), "numpy array"),
    "external parent": (lambda: _external("../../etc/passwd"), "another file"),
    "external dotted": (lambda: _external("x/../../secret"), "another file"),
    "external absolute": (lambda: _external("/dev/zero"), "another file"),
    "external in constant": (_external_in_constant, "another file"),
    "custom domain": (_custom_domain, "evil.ops"),
    "unknown operator": (_unknown_operator, "Frobnicate"),
    "opset 999": (lambda: relu(opset=999).SerializeToString(), "999"),
    "ir 99": (lambda: relu(ir=99).SerializeToString(), "99"),
    "huge constant": (_huge_constant, "memory"),
    "loop of 2^60": (lambda: _endless_loop(computed=False), "1152921504606846976 rounds"),
    "400 nested ifs": (lambda: _nested(400), "nested"),
    "20 nested ifs": (lambda: _nested(20), "nested"),
    "cycle": (_cycle, "cycle"),
    "duplicate names": (
        lambda: model(
            [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"])]
        ).SerializeToString(),
        "twice",
    ),
    "unknown input": (lambda: model([helper.make_node("Relu", ["q"], ["y"])]).SerializeToString(), "'q'"),
    "unknown output": (lambda: relu(outputs=[value("z")]).SerializeToString(), "'z'"),
    "length": (lambda: _with_weight(_weight(raw_data=b"12345")).SerializeToString(), "5 bytes instead of 16"),
    "type": (lambda: _with_weight(_weight(data_type=11)).SerializeToString(), "16 bytes instead of 32"),
    "unknown type": (lambda: _with_weight(_weight(data_type=77)).SerializeToString(), "data type"),
    "overflow": (lambda: _with_weight(_weight(dims=[2**31, 2**31, 2**31])).SerializeToString(), "too large"),
    "negative": (lambda: _with_weight(_weight(dims=[-2, -2])).SerializeToString(), "negative"),
    "overflowing input": (lambda: relu(inputs=[value("x", [2**40, 2**40])]).SerializeToString(), "too large"),
    "large input": (lambda: relu(inputs=[value("x", [2**16, 2**14])]).SerializeToString(), "too large"),
    "sequence input": (_sequence_input, "not a tensor"),
    "many nodes": (_many_nodes, "nodes"),
    "wrong types": (
        lambda: model([helper.make_node("MatMul", ["x", "w"], ["y"])], initializer=[
            numpy_helper.from_array(np.ones((2, 2), np.int64), "w")]).SerializeToString(),
        "Type",
    ),
}  # fmt: skip
ENDLESS_LOOP = _endless_loop
