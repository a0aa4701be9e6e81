"""What exporters share whose artifact is made of an ONNX file alone: whatever becomes ONNX becomes theirs too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.evaluate.rows import Rows
from engine.export.base import Source
from engine.export.onnx_exporter import OnnxExporter


class OnOnnx:
    """Leaves the ONNX file beside the artifact, so that the artifact can be made again of a checked file, in a
    process that has not run the model's own code (`engine.export.tasks:wrap`)."""

    on_request = True
    file_name: str

    def why_not(self, framework: str) -> str | None:
        return OnnxExporter().why_not(framework)

    def environment(self, framework: str) -> str | None:
        return OnnxExporter().environment(framework)

    def export(self, source: Source, rows: Rows, out: Path, options: Any) -> dict[str, Any]:
        """As of `OnnxExporter.export`."""
        onnx = OnnxExporter()
        result = onnx.export(source, rows, out, OnnxExporter.Options(opset=options.opset))
        self.wrap(out / onnx.file_name, out / self.file_name, result["signature"], options)
        return result

    def wrap(self, onnx_file: Path, artifact: Path, described: dict[str, Any], options: Any) -> None:
        """Makes `artifact` of an ONNX file of that signature."""
        raise NotImplementedError
