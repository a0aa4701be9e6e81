"""Rows that teach and rows that judge are parted once and for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import EngineError
from engine.evaluate import rows
from engine.optimize.lab.parts import split


def data(tmp_path: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", X=random.normal(size=(count, 3)).astype(np.float32), y=np.arange(count) % 4)
    return tmp_path / "d.npz"


def test_parts_share_no_row_and_repeat_when_the_seed_is_the_same(tmp_path: Path) -> None:
    found = []
    for turn in range(2):
        out = tmp_path / str(turn)
        out.mkdir()
        counts = split(params={"share": 0.3, "seed": 7}, inputs={"rows": data(tmp_path, 200)}, out=out)
        assert counts == {"calibration": 60, "evaluation": 140}
        found.append([rows.load(out / f"{name}.parquet") for name in counts])
    (calibration, evaluation), (again, _) = found
    assert np.array_equal(calibration.matrix, again.matrix) and np.array_equal(calibration.y, again.y)
    assert not {row.tobytes() for row in calibration.matrix} & {row.tobytes() for row in evaluation.matrix}
    assert [int(np.sum(calibration.y == label)) for label in range(4)] == [15] * 4


def test_split_is_refused_when_there_are_too_few_rows(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="too few"):
        split(params={"share": 0.3, "seed": 0}, inputs={"rows": data(tmp_path, 12)}, out=tmp_path)
