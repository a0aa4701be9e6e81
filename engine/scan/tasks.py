"""The sandboxed tasks of this room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import EngineError


def scan_source(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Scans inputs["source"], the folder of an MLflow model, as data; see `source.scan`."""
    from engine.scan.source import scan

    return scan(inputs["source"])


def check_onnx(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Checks the single-file ONNX model inputs["file"], then loads it and runs it once on zeros.

    {"signature", "opset", "domains", "ir_version", "nodes", "parameters", "producer"}.
    EngineError(field="file") for everything that is wrong with it.
    """
    return check_onnx_file(inputs["file"])


def check_pmml(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Checks that inputs["file"] is a PMML document that is safe to read; see `pmml.check_pmml_file`.

    EngineError(field="file") for everything that is wrong with it.
    """
    from engine.scan.pmml import check_pmml_file

    return check_pmml_file(inputs["file"])


def check_onnx_file(path: Path) -> dict[str, Any]:
    """`check_onnx` for a path; call it inside the sandbox only."""
    from engine.formats import signature
    from engine.scan import onnx_loops, onnx_run, onnx_structure
    from engine.scan.refusal import refuse

    if path.stat().st_size > onnx_structure.MAX_BYTES:
        raise EngineError("The file is larger than the 2 GB an ONNX file can have.", field="file", code="onnx")
    data = path.read_bytes()
    model = onnx_structure.parse(data)
    counts = onnx_structure.check(model)
    _official_check(model)
    found = signature.of_onnx(model)
    if not found["outputs"]:
        raise refuse("The model has no outputs.", code="graph")
    seconds = onnx_loops.seconds_for(model, len(data))
    onnx_run.run_once(onnx_run.session(data), onnx_run.zeros(found), seconds)
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    return {
        "signature": found,
        "opset": opsets.get("ai.onnx"),
        "domains": opsets,
        "ir_version": model.ir_version,
        "producer": " ".join(part for part in (model.producer_name, model.producer_version) if part)[:100],
        **counts,
    }


def _official_check(model: Any) -> None:
    """ONNX's own checker, last: it is native code, and its texts are long."""
    import onnx

    from engine.sandbox.text import neutral
    from engine.scan.refusal import refuse

    try:
        onnx.checker.check_model(model, full_check=False)
    except onnx.checker.ValidationError as error:
        raise refuse(f"The model is not valid ONNX. {neutral(error)}") from error
