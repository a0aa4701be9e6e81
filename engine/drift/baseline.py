"""A baseline: what each feature and the target looked like in the data a version was made from."""

from __future__ import annotations

from typing import Any

from engine.evaluate.rows import Rows

MAX_FEATURES = 500
_BINS = 20
_MOST_VALUES = 50
_MOST_LABELS = 200


def baseline(rows: Rows) -> dict[str, Any]:
    """{"rows", "features": {name: feature}, "target": {label: count} or {}, "features_left_out": count}.

    A number: {"kind": "number", "mean", "std", "min", "max", "edges" (k + 1), "counts" (k), "missing"}. The inner
    edges are quantiles of the data, so that each bin starts equally full; the outermost bins also
    take what lies beyond min and max. A text: {"kind": "category", "counts": {value: count}, "other",
    "missing"}, the 50 most frequent values. A continuous target has no counts.
    """
    names = rows.columns[:MAX_FEATURES]
    return {
        "rows": len(rows),
        "features": {name: _feature(rows.column(name)) for name in names},
        "target": _labels(rows.y),
        "features_left_out": len(rows.columns) - len(names),
    }


def _feature(values: Any) -> dict[str, Any]:
    return _category(values) if values.dtype == object else _number(values)


def _number(values: Any) -> dict[str, Any]:
    import numpy as np

    numbers = np.asarray(values, dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    summary: dict[str, Any] = {"kind": "number", "missing": int(len(numbers) - len(finite))}
    if not len(finite):
        return {**summary, "mean": None, "std": None, "min": None, "max": None, "edges": [], "counts": []}
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, _BINS + 1)))
    if len(edges) == 1:
        edges = np.array([edges[0], np.nextafter(edges[0], np.inf)])
    counts, _ = np.histogram(finite, bins=edges)
    return {
        **summary,
        "mean": float(finite.mean()),
        "std": float(finite.std()),
        "min": float(finite.min()),
        "max": float(finite.max()),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def _category(values: Any) -> dict[str, Any]:
    from collections import Counter

    counts = Counter(str(value)[:100] for value in values if value != "")
    top = dict(counts.most_common(_MOST_VALUES))
    return {
        "kind": "category",
        "counts": top,
        "other": sum(counts.values()) - sum(top.values()),
        "missing": len(values) - sum(counts.values()),
    }


def _labels(y: Any) -> dict[str, int]:
    from collections import Counter

    if y is None or y.dtype.kind == "f":
        return {}
    return dict(Counter(str(value)[:100] for value in y).most_common(_MOST_LABELS))
