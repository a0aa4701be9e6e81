"""Prepared environments on disk: how large they are, who uses them, and taking them away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def size_of(folder: Path) -> int:
    """Bytes on disk of all files below a folder; a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for where, _, names in os.walk(folder):
        for name in names:
            info = os.lstat(Path(where, name))
            seen[info.st_dev, info.st_ino] = info.st_blocks * 512
    return sum(seen.values())


@contextlib.contextmanager
def held(root: Path, digest: str) -> Iterator[None]:
    """Meanwhile nobody takes the environment away."""
    with (root / f".{digest}.use").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def remove(root: Path, digest: str) -> bool:
    """Takes an environment away; False when somebody uses it now. One that is not there is gone already."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{digest}.use").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Renamed first: whoever looks finds it whole or not at all.
        grave = Path(tempfile.mkdtemp(prefix=f".{digest}.", dir=root))
        try:
            with contextlib.suppress(FileNotFoundError):
                (root / digest).rename(grave / "gone")
        finally:
            shutil.rmtree(grave, ignore_errors=True)
    return True
