"""Latency sketch: log-spaced buckets that add up across processes and windows.

Bucket i holds durations d (microseconds) with GAMMA**i <= d < GAMMA**(i+1); a quantile read from it is
within (GAMMA - 1) / 2 = 5 % of the true one (the idea of DDSketch, Masson et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

GAMMA = 1.1
_LOG_GAMMA = math.log(GAMMA)


def bucket_of(microseconds: float) -> int:
    """Index of the bucket of a duration in microseconds; everything below 1 µs is bucket 0."""
    return int(math.log(microseconds) / _LOG_GAMMA) if microseconds > 1 else 0


def buckets_of(microseconds: np.ndarray) -> dict[int, int]:
    """Counts by bucket of many durations in microseconds, as `bucket_of` would place each."""
    found = np.log(np.maximum(microseconds, 1.0)) / _LOG_GAMMA
    indices, counts = np.unique(found.astype(np.int64), return_counts=True)
    return dict(zip(indices.tolist(), counts.tolist(), strict=True))


def value_of(bucket: int) -> float:
    """Middle of a bucket in microseconds."""
    return GAMMA ** (bucket + 0.5)


def quantile(buckets: Mapping[str, int] | Mapping[int, int], q: float) -> float | None:
    """The q-quantile (0..1) in microseconds, or None without samples."""
    counts = sorted((int(index), count) for index, count in buckets.items())
    total = sum(count for _, count in counts)
    if total == 0:
        return None
    rank = q * (total - 1)
    seen = 0
    for index, count in counts:
        seen += count
        if seen > rank:
            return value_of(index)
    return value_of(counts[-1][0])


def merged(*sketches: Mapping[str, int]) -> dict[str, int]:
    """Sum of several sketches, keyed by the bucket index as text (as JSON carries it)."""
    total: dict[str, int] = {}
    for sketch in sketches:
        for index, count in sketch.items():
            total[str(index)] = total.get(str(index), 0) + count
    return total
