"""Folders as one file: tar archives that are the same bytes whenever their content is."""

from __future__ import annotations

import tarfile
from pathlib import Path


def pack(folder: Path, file: Path) -> None:
    """Writes every plain file of `folder` to an uncompressed tar: by sorted name, without times and owners."""
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*"), key=lambda each: each.relative_to(folder).as_posix()):
            if not path.is_file() or path.is_symlink():
                continue
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                archive.addfile(entry, content)
