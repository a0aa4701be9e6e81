"""ExportedProgram (.pt2) from PyTorch modules: the whole graph with its weights, for torch.export.load and compilers
behind it, without the model's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export.base import Source
from engine.export.on_torch import NOTE, OnTorch, cannot, described, free_batch, one_row


class ExportedProgramExporter(OnTorch):
    """What torch.export makes, with a free batch."""

    name = "pt2"
    label = "ExportedProgram"
    format = "pt2"
    file_name = "model.pt2"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        strict: bool = Field(
            False, description="Reads the module's bytecode too, which finds more mistakes and knows less of Python."
        )

    def export(self, source: Source, rows: Rows, out: Path, options: Options) -> dict[str, Any]:
        """{"signature", "opset": None, "labels": None, "method": "torch.export" or "as stored"}.

        EngineError(code="unsupported") for TorchScript, for what torch.export cannot follow and for a fixed batch."""
        import torch

        from engine.export.sources.base import source_of
        from engine.export.sources.pytorch import example_of

        model = source_of(source.framework).load(source.folder)
        free_batch(model)
        example = example_of(model, rows)
        program, method = _program(model, example, options.strict)
        signature = described(model, program.module(), example, rows)
        path = out / self.file_name
        # Its example is of the rows themselves, which are nobody's business who has the model.
        program.example_inputs = (tuple(torch.zeros_like(each) for each in example.values()), {})
        torch.export.save(program, path, extra_files={NOTE: json.dumps(signature)})
        one_row(torch.export.load(path).module(), example, "program")
        return {"signature": signature, "opset": None, "labels": None, "method": method}

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        import torch

        from engine.export.sources.pytorch import TorchModel, inputs_of, outputs_of

        notes = {NOTE: ""}
        program = torch.export.load(artifact, extra_files=notes)
        model = TorchModel(program.module(), "program", program, json.loads(notes[NOTE]), None)
        return outputs_of(model.module, inputs_of(model, rows))


def _program(model: Any, example: dict[str, Any], strict: bool) -> tuple[Any, str]:
    """(the ExportedProgram, how it was made)."""
    import torch

    from engine.sandbox.text import neutral

    if model.kind == "program":
        return model.program, "as stored"
    if model.kind == "script":
        raise cannot("torch.export takes no TorchScript: log the module itself.")
    batch = torch.export.Dim("batch")  # a name: torch then refuses what works for one number of rows only
    shapes = tuple({0: batch} for _ in example)
    try:
        with torch.no_grad():
            return torch.export.export(
                model.module, tuple(example.values()), dynamic_shapes=shapes, strict=strict
            ), "torch.export"
    except Exception as error:
        # Whatever a foreign model's code makes torch raise.
        raise cannot(f"torch.export cannot follow this model: {neutral(error)[:200]}") from error
