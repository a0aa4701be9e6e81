"""The sandboxed task that parts a data set: rows that teach, and rows that judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import EngineError

CALIBRATES = 0.3
_LEAST = 20


def split(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Writes params["share"] of each class of inputs["rows"] to calibration.parquet and the rest to
    evaluation.parquet, always the same for one params["seed"]; params: target,
    slices (columns beside X of an npz that are kept).

    {"calibration": rows, "evaluation": rows}. EngineError(field="rows") for fewer than 20 rows.
    """
    from engine.evaluate import rows
    from engine.optimize import sampling

    target = str(params.get("target") or "target")
    data = rows.load(inputs["rows"], target, beside=params.get("slices") or ())
    if len(data) < _LEAST:
        raise EngineError(
            f"{len(data)} rows are too few to calibrate with some and to judge on the others; {_LEAST} would do.",
            field="rows",
            code="rows",
        )
    calibration, evaluation = sampling.split(data, float(params["share"]), int(params["seed"]))
    parts = {"calibration": calibration, "evaluation": evaluation}
    for name, part in parts.items():
        rows.save(part, target, out / f"{name}.parquet")
    return {name: len(part) for name, part in parts.items()}
