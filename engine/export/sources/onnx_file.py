"""ONNX models as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows


class OnnxSource:
    """The one .onnx file of a folder, or the file itself."""

    name = "onnx"
    label = "ONNX"
    environment: str | None = None
    complete = True

    class Options(BaseModel):
        """None."""

    def load(self, folder: Path) -> Path:
        """The file's path."""
        if folder.is_file():
            return folder
        found = sorted(folder.rglob("*.onnx"))
        if len(found) != 1:
            raise EngineError(f"The model has {len(found)} .onnx files instead of one.", field="file", code="onnx")
        return found[0]

    def predictions(self, model: Path, rows: Rows) -> Outputs:
        return onnx_outputs(model, rows)

    def class_labels(self, model: Path) -> list[Any] | None:
        return None


def onnx_outputs(artifact: Path, rows: Rows) -> Outputs:
    """Labels and scores of an ONNX file for `rows`."""
    from engine.evaluate import outputs
    from engine.formats import signature
    from engine.scan import onnx_run, onnx_structure

    content = artifact.read_bytes()
    described = signature.of_onnx(onnx_structure.parse(content))
    return outputs.run_all(onnx_run.session(content), described, rows)
