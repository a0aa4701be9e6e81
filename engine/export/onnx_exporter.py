"""ONNX from what a framework's converter in `to_onnx` makes; an ONNX model stays as it is."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export.base import Exporter, Source
from engine.scan.names import printable
from engine.sentence import Sentence, say

_CONVERTERS = {
    "keras": "keras_model",
    "lightgbm": "boosting",
    "pmml": "pmml",
    "pytorch": "pytorch",
    "sklearn": "scikit_learn",
    "tensorflow": "keras_model",
    "xgboost": "boosting",
}


NO_WAY = "There is no way from %(framework)s models to ONNX here."


class OnnxExporter(Exporter):
    """One graph with a dynamic batch."""

    name = "onnx"
    label = "ONNX"
    format = "onnx"
    file_name = "model.onnx"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        opset: int | None = Field(None, ge=11, le=30, description="Operator set; empty: the newest that fits.")

    def why_not(self, framework: str) -> Sentence | None:
        if framework == "onnx" or framework in _CONVERTERS:
            return None
        return say(NO_WAY, framework=framework)

    def environment(self, framework: str) -> str | None:
        from engine.export.sources.base import source_of

        return source_of(framework).environment

    def export(self, source: Source, rows: Rows, out: Path, options: Options) -> dict[str, Any]:
        """{"signature", "opset", "labels", "nodes", "parameters", "producer", ...what the converter says}.

        The file has passed `check_onnx`."""
        from engine.export.sources.base import source_of
        from engine.scan.tasks import check_onnx_file

        artifact, kind = out / self.file_name, source_of(source.framework)
        model = kind.load(source.folder)
        facts: dict[str, Any] = {}
        if source.framework == "onnx":
            shutil.copyfile(model, artifact)
        else:
            converter = importlib.import_module(f"engine.export.to_onnx.{_CONVERTERS[source.framework]}")
            made = converter.convert(model, rows, options.opset)
            content, facts = made if isinstance(made, tuple) else (made, {})
            artifact.write_bytes(content)
        checked = check_onnx_file(artifact)
        keep = ("signature", "opset", "nodes", "parameters", "producer")
        return {**{name: checked[name] for name in keep}, "labels": kind.class_labels(model), **facts}

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        from engine.export.sources.onnx_file import onnx_outputs

        return onnx_outputs(artifact, rows)

    def place(self, source: Source, rows: Rows, artifact: Path, options: Options, tolerance: float) -> str:
        """The step of a scikit-learn pipeline, or the layer of a network."""
        from engine.export.first_difference import first_difference
        from engine.export.first_layer import first_layer
        from engine.export.sources.base import source_of

        if source.framework == "sklearn":
            step = first_difference(source_of("sklearn").load(source.folder), rows, options.opset, tolerance)
            return f"the first difference is after step '{step}'" if step else ""
        if source.framework in ("pytorch", "keras", "tensorflow"):
            model = source_of(source.framework).load(source.folder)
            layer = first_layer(source.framework, model, rows, artifact, tolerance)
            return f"the first output that differs is that of layer '{printable(layer)}'" if layer else ""
        return ""
