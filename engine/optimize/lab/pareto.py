"""Which variants no other one beats."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points (smaller is better) that none dominates: no other is at least as good in every
    place and better in one. Of equal points the first stays."""
    kept = []
    for index, point in enumerate(points):
        if not any(
            _dominates(other, point) or (place < index and tuple(other) == tuple(point))
            for place, other in enumerate(points)
            if place != index
        ):
            kept.append(index)
    return kept


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
