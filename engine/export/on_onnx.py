"""What exporters share whose artifact is made of an ONNX file alone: whatever becomes ONNX becomes theirs too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.evaluate.rows import Rows
from engine.export.base import Exporter, Source
from engine.export.onnx_exporter import OnnxExporter


class OnOnnx(Exporter):
    """Leaves the ONNX file beside the artifact, so that the artifact can be made again of a checked file, in a
    process that has not run the model's own code (`engine.export.tasks:wrap`)."""

    on_request = True
    from_onnx = True

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
