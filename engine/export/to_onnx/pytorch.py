"""PyTorch to ONNX: by torch.export, and by TorchScript's tracer where that fails."""

from __future__ import annotations

import io
from typing import Any

from engine.errors import EngineError
from engine.evaluate.rows import Rows
from engine.export.sources.pytorch import TorchModel, example_of, input_signature, tensors

_LEAST_OPSET = 18  # of torch.export's operators; below, it keeps 18 without an error


def convert(model: TorchModel, rows: Rows, opset: int | None) -> tuple[bytes, dict[str, Any]]:
    """(one graph with all weights inside and the signature's names, {"converter", "converter_reason"}).

    The batch is free unless the stored program's is not. converter: "torch.export" or "torchscript";
    converter_reason: why not the first, None when it was. EngineError(code="unsupported") when both fail.
    """
    example = example_of(model, rows)
    names = [each["name"] for each in input_signature(model, len(rows.columns))]
    given = _output_names(model, example)
    if opset is not None and opset < _LEAST_OPSET:
        reason = f"torch.export writes no opset below {_LEAST_OPSET}."
    else:
        try:
            content = _by_export(model, tuple(example.values()), names, given, opset)
            return content, {"converter": "torch.export", "converter_reason": None}
        except Exception as error:
            # Whatever a foreign model's code makes torch raise: the other exporter may still manage.
            reason = _why(error)
            print(f"torch.export failed, trying TorchScript: {reason}")
    try:
        content = _by_script(model, tuple(example.values()), names, given, opset)
    except Exception as error:
        raise EngineError(
            f"PyTorch cannot write this model as ONNX: {_why(error)}", field="exporter", code="unsupported"
        ) from error
    return content, {"converter": "torchscript", "converter_reason": reason}


def _by_export(model: TorchModel, example: tuple[Any, ...], names: list[str], given: list[str], opset: Any) -> bytes:
    import torch

    if model.kind == "program":
        what, shapes = model.program, None  # its free axes are its own
    else:
        what, shapes = model.module, tuple({0: "batch"} for _ in example)
    made = torch.onnx.export(
        what,
        example,
        dynamo=True,
        input_names=names,
        output_names=given,
        opset_version=opset,
        dynamic_shapes=shapes,
        external_data=False,
        verbose=False,
    )
    assert made is not None
    return bytes(made.model_proto.SerializeToString())


def _by_script(model: TorchModel, example: tuple[Any, ...], names: list[str], given: list[str], opset: Any) -> bytes:
    import torch

    module = model.module
    if model.kind == "program":
        # The exporter switches modes, which a program's module refuses; its trace has none.
        module = torch.jit.trace(module, example)
    buffer = io.BytesIO()
    free = {} if model.batch else {name: {0: "batch"} for name in [*names, *given]}
    torch.onnx.export(
        module,
        example,
        buffer,
        dynamo=False,
        input_names=names,
        output_names=given,
        opset_version=opset,
        dynamic_axes=free,
    )
    return buffer.getvalue()


def _output_names(model: TorchModel, example: dict[str, Any]) -> list[str]:
    """The signature's, where it names as many as there are."""
    import torch

    with torch.inference_mode():
        count = len(tensors(model.module(*example.values())))
    named = [each["name"] for each in model.signature["outputs"]]
    if len(named) == count and not set(named) & set(example):
        return named
    return [f"output_{index}" for index in range(count)]


def _why(error: BaseException) -> str:
    """The innermost reason in one line: torch wraps it in pages of advice."""
    from engine.sandbox.text import neutral

    while error.__cause__ is not None:
        error = error.__cause__
    return neutral(error)[:300]
