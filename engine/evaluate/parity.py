"""Whether two models say the same about the same rows."""

from __future__ import annotations

from typing import Any

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs, same_words

DEFAULT_TOLERANCE = 1e-4
_LEAST_AGREEMENT = 0.999
_WORST = 5


def compare(source: Outputs, target: Outputs, tolerance: float = DEFAULT_TOLERANCE) -> dict[str, Any]:
    """{"max_abs", "max_rel", "agreement", "rows", "passed", "worst": [{"row", "difference", "source", "target"}]}.

    Scores a (source) and b pass when |a - b| <= tolerance * (1 + |a|) everywhere; not-a-number matches only
    itself. Labels must agree but on rows whose two best scores lie within the tolerance of each other (a tie);
    without scores 99.9 % must agree. max_abs, max_rel and agreement are None where there is nothing
    to compare. EngineError(code="parity") when the outputs have other shapes or nothing in common.
    """
    import numpy as np

    if len(source) != len(target):
        raise EngineError(f"{len(target)} predictions for {len(source)} rows.", code="parity")
    result: dict[str, Any] = {"max_abs": None, "max_rel": None, "agreement": None, "rows": len(source)}
    per_row = np.zeros(len(source))
    passed, compared = True, False
    ties = np.zeros(len(source), dtype=bool)
    if source.scores is not None and target.scores is not None:
        a, b = source.scores, target.scores
        if a.shape != b.shape:
            raise EngineError(f"Scores of shape {b.shape} instead of {a.shape}.", code="parity")
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):
            difference = np.where(same, 0.0, np.abs(a - b))
        difference = np.where(np.isnan(difference), np.inf, difference)
        scale = np.where(np.isfinite(a), np.abs(a), 0.0)
        passed = bool(np.all(difference <= tolerance * (1 + scale)))
        per_row = difference.max(axis=1)
        result["max_abs"] = _number(difference.max())
        result["max_rel"] = _number((difference / np.maximum(scale, 1e-12))[scale > tolerance].max(initial=0.0))
        if a.shape[1] > 1:
            best = np.sort(a, axis=1)
            ties = best[:, -1] - best[:, -2] <= 2 * tolerance
        compared = True
    if source.labels is not None and target.labels is not None:
        equal = same_words(source.labels) == same_words(target.labels)
        result["agreement"] = float(equal.mean())
        enough = np.all(equal | ties) if compared else equal.mean() >= _LEAST_AGREEMENT
        passed = passed and bool(enough)
        per_row = np.where(equal, per_row, np.maximum(per_row, 1.0))
        compared = True
    if not compared:
        raise EngineError("The two models give different kinds of output.", code="parity")
    worst = [int(row) for row in np.argsort(-per_row, kind="stable")[:_WORST] if per_row[row] > 0]
    result["passed"] = passed
    result["worst"] = [
        {
            "row": row,
            "difference": _number(per_row[row]),
            "source": _shown(source, row),
            "target": _shown(target, row),
        }
        for row in worst
    ]
    return result


def _number(value: Any) -> float:
    """JSON has no infinity; the largest float says the same."""
    import numpy as np

    return float(np.nan_to_num(value, posinf=1e308, neginf=-1e308))


def _shown(outputs: Outputs, row: int) -> str:
    if outputs.labels is not None:
        return str(outputs.labels[row])[:40]
    return ", ".join(f"{value:.6g}" for value in outputs.scores[row][:4])  # type: ignore[index]
