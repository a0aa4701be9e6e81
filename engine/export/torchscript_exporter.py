"""TorchScript from PyTorch modules: one file that C++ and TorchServe load without the model's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export.base import Source
from engine.formats import signature
from engine.formats.signature import Signature

Method = Literal["auto", "script", "trace"]
_NOTE = "signature.json"  # an extra file inside the archive: a TorchScript file does not know its own input's shape


class TorchscriptExporter:
    """A compiled module with a free batch."""

    name = "torchscript"
    label = "TorchScript"
    format = "torchscript"
    file_name = "model.pt"
    on_request = True

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        method: Method = Field(
            "auto", description="script keeps branches and loops; trace records one run; auto: script, else trace."
        )

    def why_not(self, framework: str) -> str | None:
        if framework == "pytorch":
            return None
        return f"TorchScript is a format of PyTorch, and this is a model of {framework}."

    def environment(self, framework: str) -> str | None:
        return "torch"

    def export(self, source: Source, rows: Rows, out: Path, options: Options) -> dict[str, Any]:
        """{"signature", "opset": None, "labels": None, "method": "script", "trace" or "as stored"}."""
        from engine.export.sources.base import source_of

        described, method = write_script(
            source_of(source.framework).load(source.folder), rows, out / self.file_name, options.method
        )
        return {"signature": described, "opset": None, "labels": None, "method": method}

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        import torch

        from engine.export.sources.pytorch import TorchModel, inputs_of, outputs_of

        notes = {_NOTE: ""}
        module = torch.jit.load(str(artifact), map_location="cpu", _extra_files=notes)
        model = TorchModel(module, "script", None, json.loads(notes[_NOTE]), None)
        return outputs_of(module, inputs_of(model, rows))


def write_script(model: Any, rows: Rows, path: Path, method: Method) -> tuple[Signature, str]:
    """Writes the TorchModel `model` to `path`; (its signature as it is in the file, how it was made).

    EngineError(code="unsupported") when it cannot be compiled or its batch is not free."""
    import torch

    from engine.export.sources.pytorch import example_of

    if model.batch:
        raise _cannot(
            f"The program takes {model.batch} row{'s' * (model.batch > 1)} at a time: log it with an input example of "
            "two or more rows, which leaves its batch free."
        )
    example = example_of(model, rows)
    script, how = _scripted(model, tuple(example.values()), method)
    described = _signature(model, script, example, rows)
    script.save(str(path), _extra_files={_NOTE: json.dumps(described)})
    loaded = torch.jit.load(str(path), map_location="cpu")
    with torch.inference_mode():
        try:
            loaded(*(each[:1] for each in example.values()))
        except RuntimeError as error:
            raise _cannot(f"The {how} works for two rows and not for one: its batch is not free.") from error
    return described, how


def _scripted(model: Any, example: tuple[Any, ...], method: Method) -> tuple[Any, str]:
    import torch

    from engine.sandbox.text import neutral

    if model.kind == "script":
        return model.module, "as stored"
    if method != "trace" and model.kind == "module":
        try:
            return torch.jit.script(model.module), "script"
        except Exception as error:
            # Parts of Python that TorchScript lacks, or a class that came without its text.
            if method == "script":
                raise _cannot(f"TorchScript cannot compile this model: {neutral(error)[:200]}") from error
            print(f"scripting failed, tracing instead: {neutral(error)[:200]}")
    elif method == "script":
        raise _cannot("A stored program has no code to compile: use trace.")
    try:
        with torch.no_grad():
            return torch.jit.trace(model.module, example), "trace"
    except Exception as error:
        raise _cannot(f"TorchScript cannot trace this model: {neutral(error)[:200]}") from error


def _signature(model: Any, script: Any, example: dict[str, Any], rows: Rows) -> Signature:
    """Inputs as the model's signature has them; outputs as they come, under its names where the count is right."""
    import torch

    from engine.export.sources.pytorch import input_signature, tensors

    with torch.inference_mode():
        made = tensors(script(*example.values()))
    names = [each["name"] for each in model.signature["outputs"]]
    if len(names) != len(made):
        names = [f"output_{index}" for index in range(len(made))]
    outputs = [
        signature.tensor(name, _datatype(each), [-1, *each.shape[1:]]) for name, each in zip(names, made, strict=True)
    ]
    return {"inputs": input_signature(model, len(rows.columns)), "outputs": outputs}


def _datatype(tensor: Any) -> str:
    name = str(tensor.dtype).rpartition(".")[2]
    return "FP32" if name == "bfloat16" else signature.of_numpy(name)


def _cannot(message: str) -> EngineError:
    return EngineError(message, field="exporter", code="unsupported")
