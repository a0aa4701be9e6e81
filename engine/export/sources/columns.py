"""Rows as the one matrix of numbers that boosted trees take."""

from __future__ import annotations

from typing import Any

from engine.errors import EngineError
from engine.evaluate.rows import Rows


def matrix_of(rows: Rows, names: list[str] | None, width: int) -> Any:
    """float32 (n, width): by the model's feature names where the rows have them, by position otherwise.

    names: None when the model was trained on a bare matrix. EngineError(field="rows") for words and for another
    number of columns.
    """
    import numpy as np

    if rows.matrix is None:
        words = next(name for name in rows.columns if rows.column(name).dtype == object)
        raise EngineError(
            f"The model takes numbers only, and the column '{words[:60]}' holds text.", field="rows", code="rows"
        )
    # LightGBM writes the blanks of column names as underscores.
    known = {plain(name): index for index, name in enumerate(rows.columns)}
    wanted = [plain(name) for name in names or []]
    if wanted and set(wanted) <= known.keys():
        return np.ascontiguousarray(rows.matrix[:, [known[name] for name in wanted]])
    if rows.matrix.shape[1] != width:
        raise EngineError(
            f"The rows have {rows.matrix.shape[1]} columns, the model takes {width}.", field="rows", code="rows"
        )
    return rows.matrix


def plain(name: str) -> str:
    return str(name).replace(" ", "_")
