"""Prepared environments on disk."""

from __future__ import annotations

import os
from pathlib import Path

from engine.export import environment_store


def test_size_counts_a_file_once_when_it_has_two_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(100_000))
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    assert 100_000 <= environment_store.size_of(tmp_path) < 120_000


def test_environment_goes_only_when_nobody_holds_it(tmp_path: Path) -> None:
    (tmp_path / "e" / "bin").mkdir(parents=True)
    with environment_store.held(tmp_path, "e"), environment_store.held(tmp_path, "e"):
        assert not environment_store.remove(tmp_path, "e")
    assert environment_store.remove(tmp_path, "e") and environment_store.remove(tmp_path, "e")
    assert [path.name for path in tmp_path.iterdir()] == [".e.use"]
