"""TorchScript from PyTorch modules: one file that C++ and TorchServe load without the model's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export.base import Source
from engine.export.on_torch import NOTE, OnTorch, cannot, described, free_batch, one_row
from engine.formats.signature import Signature

Method = Literal["auto", "script", "trace"]


class TorchscriptExporter(OnTorch):
    """A compiled module with a free batch."""

    name = "torchscript"
    label = "TorchScript"
    format = "torchscript"
    file_name = "model.pt"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        method: Method = Field(
            "auto", description="script keeps branches and loops; trace records one run; auto: script, else trace."
        )

    def export(self, source: Source, rows: Rows, out: Path, options: Options) -> dict[str, Any]:
        """{"signature", "opset": None, "labels": None, "method": "script", "trace" or "as stored"}."""
        from engine.export.sources.base import source_of

        signature, method = write_script(
            source_of(source.framework).load(source.folder), rows, out / self.file_name, options.method
        )
        return {"signature": signature, "opset": None, "labels": None, "method": method}

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        import torch

        from engine.export.sources.pytorch import TorchModel, inputs_of, outputs_of

        notes = {NOTE: ""}
        module = torch.jit.load(str(artifact), map_location="cpu", _extra_files=notes)
        model = TorchModel(module, "script", None, json.loads(notes[NOTE]), None)
        return outputs_of(module, inputs_of(model, rows))


def write_script(model: Any, rows: Rows, path: Path, method: Method) -> tuple[Signature, str]:
    """Writes the TorchModel `model` to `path`; (its signature as it is in the file, how it was made).

    EngineError(code="unsupported") when it cannot be compiled or its batch is not free."""
    import torch

    from engine.export.sources.pytorch import example_of

    free_batch(model)
    example = example_of(model, rows)
    script, how = _scripted(model, tuple(example.values()), method)
    signature = described(model, script, example, rows)
    script.save(str(path), _extra_files={NOTE: json.dumps(signature)})
    one_row(torch.jit.load(str(path), map_location="cpu"), example, how)
    return signature, how


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
                raise cannot(f"TorchScript cannot compile this model: {neutral(error)[:200]}") from error
            print(f"scripting failed, tracing instead: {neutral(error)[:200]}")
    elif method == "script":
        raise cannot("A stored program has no code to compile: use trace.")
    try:
        with torch.no_grad():
            return torch.jit.trace(model.module, example), "trace"
    except Exception as error:
        raise cannot(f"TorchScript cannot trace this model: {neutral(error)[:200]}") from error
