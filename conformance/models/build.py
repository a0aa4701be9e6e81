"""Shorthand for building small ONNX models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper
from onnx import numpy_helper as nh

Shape = Sequence[int | str] | None


def info(name: str, kind: int, shape: Shape) -> onnx.ValueInfoProto:
    """A named tensor type; a text in `shape` is a free dimension."""
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, array: np.ndarray) -> onnx.TensorProto:
    """An initializer."""
    return nh.from_array(array, name)


def floats(name: str, *values: float) -> onnx.TensorProto:
    """A one-dimensional FP32 initializer."""
    return constant(name, np.array(values, np.float32))


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    """One node; `domain` among the attributes is its operator domain."""
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    name: str = "graph",
) -> onnx.GraphProto:
    """A graph, also for the branches and bodies of control flow."""
    return helper.make_graph(list(nodes), name, list(inputs), list(outputs), list(constants))


def proto(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    opset: int = 18,
) -> onnx.ModelProto:
    """A checked model with the standard and the classic-learning operators."""
    made = helper.make_model(
        graph(nodes, inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
    )
    onnx.checker.check_model(made)
    return made


def model(*parts: Any, **more: Any) -> bytes:
    """`proto` as bytes."""
    return proto(*parts, **more).SerializeToString()


__all__ = ["Shape", "T", "constant", "floats", "graph", "info", "model", "node", "proto"]
