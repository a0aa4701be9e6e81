"""Zips that are model formats, looked at from outside: names and sizes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

from engine.scan.verdict import Findings

_MAX_ENTRIES = 10_000


def check_zip(source: Path | IO[bytes], size: int, name: str, findings: Findings) -> bool:
    """Whether the zip of `size` bytes has no way out and is no bomb; `findings` say why not."""
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        findings.add("rejected", name, f"The archive is damaged ({type(error).__name__}).")
        return False
    wrong = []
    names = [entry.filename for entry in entries]
    if any(each.startswith("/") or ".." in each.split("/") or "\\" in each for each in names):
        wrong.append("The archive holds names that lead outside.")
    if len({each.casefold() for each in names}) != len(names):
        wrong.append("The archive holds the same name twice.")
    if len(entries) > _MAX_ENTRIES or sum(entry.file_size for entry in entries) > 200 * max(size, 1 << 20):
        wrong.append("The archive unpacks to far more than it is.")
    for message in wrong:
        findings.add("rejected", name, message)
    return not wrong
