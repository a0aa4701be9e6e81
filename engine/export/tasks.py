"""The sandboxed task: convert, predict with both, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.evaluate import parity
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export.base import Exporter, Source, exporter
from engine.export.sources.base import source_of
from engine.plugins import options_of

_MOST_ROWS = 2_000  # enough to meet every leaf that matters; Java scores about as many a second


def export(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Exports inputs["source"] and proves it on inputs["rows"] (or the model's example, or invented rows).

    params: exporter (name), options ({}), tolerance (1e-4), target ("target"), framework (told by MLmodel when
    absent). {"file", "format", "signature", "opset", "labels", "parity" (see `parity.compare`), "tolerance",
    "rows_from", "environment", ...what else the exporter says}. EngineError(code="parity") when the artifact
    predicts something else.
    """
    plugin = exporter(str(params.get("exporter")))
    options = options_of(plugin, params.get("options") or {})
    return convert(plugin, options, params, inputs, out)


def prove(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Loads inputs["source"] and predicts inputs["rows"] (or the model's example): this environment can.

    params: framework, target. {"rows", "rows_from"}. EngineError for whatever is in the way.
    """
    source = Source(inputs["source"], str(params.get("framework") or _framework(inputs["source"])))
    rows, origin = _rows(source, inputs.get("rows"), str(params.get("target") or "target"))
    return {"rows": len(_source_outputs(source, rows.head(_MOST_ROWS))), "rows_from": origin}


def wrap(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Makes the artifact of an exporter on ONNX out of inputs["file"], which is checked first: for a fresh process,
    because what ran the model's own code may have written anything. params: exporter, options. {"signature"}."""
    from engine.scan.tasks import check_onnx_file

    plugin = exporter(str(params.get("exporter")))
    options = options_of(plugin, params.get("options") or {})
    described = check_onnx_file(inputs["file"])["signature"]
    plugin.wrap(inputs["file"], out / plugin.file_name, described, options)
    return {"signature": described}


def convert(
    plugin: Exporter, options: Any, params: dict[str, Any], inputs: dict[str, Path], out: Path
) -> dict[str, Any]:
    """`export` with the exporter at hand."""
    tolerance = _tolerance(params)
    source = Source(inputs["source"], str(params.get("framework") or _framework(inputs["source"])))
    reason = plugin.why_not(source.framework)
    if reason is not None:
        raise EngineError(str(reason), field="exporter", code="unsupported")
    rows, origin = _rows(source, inputs.get("rows"), str(params.get("target") or "target"))
    rows = rows.head(_MOST_ROWS)
    print(f"exporting {source.framework} to {plugin.label}")
    result = plugin.export(source, rows, out, options)
    artifact = out / plugin.file_name
    print(f"comparing predictions on {len(rows)} rows ({origin})")
    compared = parity.compare(_source_outputs(source, rows), plugin.score(artifact, rows, result["labels"]), tolerance)
    if not compared["passed"]:
        place = plugin.place(source, rows, artifact, options, tolerance)
        message = _difference(compared, tolerance) + (f"; {place}" if place else "")
        raise EngineError(f"{message}.", field="exporter", code="parity")
    return {
        "file": plugin.file_name,
        "format": plugin.format,
        **result,
        "parity": compared,
        "tolerance": tolerance,
        "rows_from": origin,
        "environment": plugin.environment(source.framework),
    }


def _framework(folder: Path) -> str:
    from engine.scan import mlmodel

    if folder.is_file() or not (folder / "MLmodel").exists():
        documents = [folder] if folder.is_file() else list(folder.iterdir())
        return "pmml" if any(each.suffix == ".pmml" for each in documents) else "onnx"
    return mlmodel.flavor_of(mlmodel.read_yaml(folder / "MLmodel", "MLmodel"))[0]


def _rows(source: Source, given: Path | None, target: str) -> tuple[Rows, str]:
    from engine.export import example

    if given is None and source.framework == "onnx":
        from engine.scan.tasks import check_onnx_file

        return example.synthesize(check_onnx_file(source_of("onnx").load(source.folder))["signature"]), "synthesized"
    if given is None and source.framework == "pmml":
        from engine.scan.pmml import check_pmml_file

        described = check_pmml_file(source_of("pmml").load(source.folder))
        return example.synthesize(described["signature"], described["values"]), "synthesized"
    return example.rows_for(source.folder, given, target)


def _source_outputs(source: Source, rows: Rows) -> Outputs:
    kind = source_of(source.framework)
    return kind.predictions(kind.load(source.folder), rows)


def _tolerance(params: dict[str, Any]) -> float:
    value = params.get("tolerance", parity.DEFAULT_TOLERANCE)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise EngineError("tolerance must be a number from 0 to 1.", field="tolerance", code="params")
    return float(value)


def _difference(compared: dict[str, Any], tolerance: float) -> str:
    parts = []
    if compared["max_abs"] is not None:
        parts.append(f"largest difference {compared['max_abs']:.3g} where {tolerance:.3g} is allowed")
    if compared["agreement"] is not None:
        parts.append(f"labels agree on {compared['agreement']:.2%} of {compared['rows']} rows")
    first = compared["worst"][0]["row"] if compared["worst"] else 0
    return f"The exported model predicts something else: {', '.join(parts)}; worst row {first}"
