"""Keras and TensorFlow to ONNX by tf2onnx, through one traced function."""

from __future__ import annotations

from engine.errors import EngineError
from engine.evaluate.rows import Rows
from engine.export.sources.tensorflow_graph import Graph

# tf2onnx.convert.from_keras fails on Sequential models, from_function takes everything.
_OPSET = 18


def convert(model: Graph, rows: Rows, opset: int | None) -> bytes:
    """One graph with the model's own tensor names and batch. EngineError(code="unsupported") for operations that
    ONNX or tf2onnx does not have."""
    import tf2onnx
    from tf2onnx.constants import OPSET_TO_IR_VERSION

    newest = max(OPSET_TO_IR_VERSION)
    if opset is not None and opset > newest:
        raise EngineError(f"tf2onnx writes opset {newest} at most.", field="options.opset", code="unsupported")
    try:
        made, _ = tf2onnx.convert.from_function(
            model.traced(), input_signature=model.specs(), opset=opset or min(_OPSET, newest)
        )
    except (ValueError, TypeError, RuntimeError, NotImplementedError, AssertionError) as error:
        raise EngineError(
            "tf2onnx cannot convert an operation of this model; the log says which.",
            field="exporter",
            code="unsupported",
        ) from error
    return bytes(made.SerializeToString())
