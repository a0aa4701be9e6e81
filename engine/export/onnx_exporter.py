"""ONNX from scikit-learn by skl2onnx; an ONNX model stays as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export.base import Source


class OnnxExporter:
    """One graph with a dynamic batch: a matrix input `input` for numbers, one input a column otherwise."""

    name = "onnx"
    label = "ONNX"
    format = "onnx"
    file_name = "model.onnx"
    environment: str | None = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        opset: int | None = Field(None, ge=11, le=30, description="Operator set; empty: the newest that fits.")

    def why_not(self, framework: str) -> str | None:
        if framework in ("sklearn", "onnx"):
            return None
        return f"ONNX export of {framework} models is not available; scikit-learn and ONNX models are."

    def export(self, source: Source, rows: Rows, out: Path, options: Options) -> dict[str, Any]:
        """{"signature", "opset", "labels", "nodes", "parameters", "producer"}; the file has passed `check_onnx`."""
        from engine.scan.tasks import check_onnx_file

        artifact = out / self.file_name
        labels = None
        if source.framework == "onnx":
            shutil.copyfile(onnx_file(source.folder), artifact)
        else:
            from engine.export import sklearn_source

            estimator = sklearn_source.load(source.folder)
            artifact.write_bytes(self._convert(estimator, rows, options))
            labels = sklearn_source.class_labels(estimator)
        checked = check_onnx_file(artifact)
        keep = ("signature", "opset", "nodes", "parameters", "producer")
        return {**{name: checked[name] for name in keep}, "labels": labels}

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        return onnx_outputs(artifact, rows)

    def _convert(self, estimator: Any, rows: Rows, options: Options) -> bytes:
        from skl2onnx import to_onnx
        from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
        from sklearn.base import is_classifier
        from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

        # ONNX Runtime takes the C locale everywhere; without this it asks the machine for en_US.
        wanted: dict[Any, Any] = {CountVectorizer: {"locale": "C"}, TfidfVectorizer: {"locale": "C"}}
        if is_classifier(estimator):
            wanted[id(estimator)] = {"zipmap": False}
        try:
            model = to_onnx(
                estimator, initial_types=_types(estimator, rows), options=wanted, target_opset=options.opset
            )
        except (MissingConverter, MissingShapeCalculator) as error:
            raise EngineError(
                f"skl2onnx has no converter for a part of this model: {str(error).split(chr(10))[0][:200]}",
                field="exporter",
                code="unsupported",
            ) from error
        return bytes(model.SerializeToString())


def _types(estimator: Any, rows: Rows) -> list[tuple[str, Any]]:
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    if rows.matrix is not None and not _selects_columns(estimator):
        return [("input", FloatTensorType([None, rows.matrix.shape[1]]))]
    if rows.matrix is None and len(rows.columns) == 1:
        return [("input", StringTensorType([None, 1]))]
    names = list(getattr(estimator, "feature_names_in_", rows.columns))
    return [
        (name, (StringTensorType if rows.column(name).dtype == object else FloatTensorType)([None, 1]))
        for name in names
    ]


def _selects_columns(estimator: Any) -> bool:
    """Whether its first step picks columns by name, so that they must arrive one by one."""
    from sklearn.compose import ColumnTransformer

    first = estimator.steps[0][1] if hasattr(estimator, "steps") else estimator
    return isinstance(first, ColumnTransformer)


def onnx_file(folder: Path) -> Path:
    """The one .onnx file of a source folder, or the file itself."""
    if folder.is_file():
        return folder
    found = sorted(folder.rglob("*.onnx"))
    if len(found) != 1:
        raise EngineError(f"The model has {len(found)} .onnx files instead of one.", field="file", code="onnx")
    return found[0]


def onnx_outputs(artifact: Path, rows: Rows) -> Outputs:
    """Labels and scores of an ONNX file for `rows`."""
    from engine.evaluate import outputs
    from engine.formats import signature
    from engine.scan import onnx_run, onnx_structure

    content = artifact.read_bytes()
    described = signature.of_onnx(onnx_structure.parse(content))
    return outputs.run_all(onnx_run.session(content), described, rows)
