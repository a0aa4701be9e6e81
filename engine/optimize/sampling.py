"""Parts of a data set, with every class in its share."""

from __future__ import annotations

from typing import Any

from engine.evaluate.rows import Rows

_FEW_CLASSES = 100


def stratified(rows: Rows, count: int, seed: int) -> Rows:
    """At most `count` rows in random order, each class (or tenth of a numeric target) in its share, and at least once
    where `count` allows. The same seed gives the same rows."""
    return rows if len(rows) <= count else rows.take(_chosen(rows, count, seed))


def split(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Two parts without a row in common: `share` (0 to 1) of each class, and the rest."""
    import numpy as np

    first = _chosen(rows, max(1, round(share * len(rows))), seed)
    rest = np.setdiff1d(np.arange(len(rows)), first)
    return rows.take(first), rows.take(rest)


def _chosen(rows: Rows, count: int, seed: int) -> Any:
    """Indices (count,): the rows are ordered so that each stretch of them has all strata in their share."""
    import numpy as np

    random = np.random.default_rng(seed)
    strata = _strata(rows)
    # Each row's place within its stratum, between 0 and 1: sorting by it deals the strata out evenly.
    places = np.empty(len(rows))
    for name in np.unique(strata):
        members = random.permutation(np.flatnonzero(strata == name))
        places[members] = (np.arange(len(members)) + random.random()) / len(members)
    return random.permutation(np.argsort(places, kind="stable")[:count])


def _strata(rows: Rows) -> Any:
    import numpy as np

    if rows.y is None:
        return np.zeros(len(rows), dtype=int)
    values, codes = np.unique(rows.y.astype(str) if rows.y.dtype == object else rows.y, return_inverse=True)
    if len(values) <= _FEW_CLASSES:
        return codes
    return (codes * 10) // len(values)
