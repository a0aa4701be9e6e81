"""What exporters share whose artifact is made of an ONNX file alone: whatever becomes ONNX becomes theirs too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.evaluate import parity
from engine.evaluate.rows import Rows
from engine.export.base import Exporter, Source
from engine.export.onnx_exporter import OnnxExporter
from engine.export.sources.base import source_of
from engine.sentence import Sentence


class OnOnnx(Exporter):
    """Leaves the ONNX file beside the artifact, so that the artifact can be made again of a checked file, in a
    process that has not run the model's own code (`engine.export.tasks:wrap`)."""

    on_request = True
    from_onnx = True

    def why_not(self, framework: str) -> Sentence | None:
        return OnnxExporter().why_not(framework)

    def environment(self, framework: str) -> str | None:
        return OnnxExporter().environment(framework)

    def export(self, source: Source, rows: Rows, out: Path, options: Any) -> dict[str, Any]:
        """As of `OnnxExporter.export`."""
        onnx = OnnxExporter()
        result = onnx.export(source, rows, out, OnnxExporter.Options(opset=options.opset))
        self.wrap(out / onnx.file_name, out / self.file_name, result["signature"], options)
        return result

    def place(self, source: Source, rows: Rows, artifact: Path, options: Any, tolerance: float) -> str:
        """Where its ONNX file differs from the source; or that this file is right, so that `wrap` changed it."""
        onnx = OnnxExporter()
        file = artifact.with_name(onnx.file_name)
        kind = source_of(source.framework)
        meant = kind.predictions(kind.load(source.folder), rows)
        if parity.compare(meant, onnx.score(file, rows, None), tolerance)["passed"]:
            return f"the ONNX file it was made of is right, so that {self.label} changed it"
        return onnx.place(source, rows, file, OnnxExporter.Options(opset=options.opset), tolerance)
