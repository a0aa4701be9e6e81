"""Loads a checked ONNX model from bytes and runs it once on zeros, under a clock."""

from __future__ import annotations

import threading
from typing import Any

from engine.errors import EngineError
from engine.formats.signature import NUMPY, Signature
from engine.scan.names import printable as name_of
from engine.scan.refusal import refuse

_MAX_INPUT = 2**27  # elements of all zero-filled inputs


def session(data: bytes, threads: int = 1) -> Any:
    """An onnxruntime.InferenceSession that spins no threads and reads no other file.

    EngineError(field="file") when ONNX Runtime refuses the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _refused("ONNX Runtime cannot load this model", error) from error


def zeros(signature: Signature) -> dict[str, Any]:
    """One zero-filled array for each input, dynamic dimensions 1, texts empty."""
    import numpy as np

    arrays, total = {}, 0
    for each in signature["inputs"]:
        shape = [1 if size < 0 else size for size in each["shape"]]
        count = 1
        for size in shape:
            count *= size
        total += count
        if total > _MAX_INPUT:
            raise refuse(f"The input '{name_of(each['name'])}' is too large to try.", code="shape")
        dtype = NUMPY[each["datatype"]]
        arrays[each["name"]] = np.full(shape, "" if dtype == "object" else 0, dtype=dtype)
    return arrays


def run_once(model: Any, feeds: dict[str, Any], seconds: float) -> list[Any]:
    """The model's outputs for `feeds`. EngineError when it fails or takes longer than `seconds`."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = 4

    def end() -> None:
        options.terminate = True

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        return list(model.run(None, feeds, options))
    except Exception as error:
        if options.terminate:
            raise refuse(f"The model did not finish one inference in {seconds:.3g} s.", code="timeout") from error
        raise _refused("The model fails on an input of zeros", error) from error
    finally:
        timer.cancel()


def _refused(what: str, error: Exception) -> EngineError:
    from engine.sandbox.text import neutral

    if isinstance(error, MemoryError) or "bad_alloc" in str(error) or "Failed to allocate" in str(error):
        return refuse(f"{what}: it asks for more memory than it may use.", code="memory")
    return refuse(f"{what}. {neutral(error)}", code="runtime")
