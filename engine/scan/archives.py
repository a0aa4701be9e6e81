"""What may be wrong with an archive, zip and tar alike: names, kinds of entries, sizes, damage, nesting.

Nothing is unpacked to a name of the archive's choosing: bytes are counted and checked against their sums, and
only an archive within an archive is put into a nameless temporary file, to be looked at in turn.
"""

from __future__ import annotations

import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.scan.archive_kinds import tar_entries, zip_count, zip_entries
from engine.scan.magic import kind_of
from engine.scan.names import Names, printable

MAX_ENTRIES = 10_000  # of all levels together
MAX_BYTES = 16 * 1024**3
MAX_RATIO = 200
SMALL = 1 << 20  # the ratio counts from here: a small file of zeros is no bomb
MAX_DEPTH = 3  # a .mar holds a .pt, which is a zip itself
KINDS = {"zip archive", "tar archive", "gzip archive"}
_CHUNK = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError, KeyError,
    NotImplementedError, OverflowError, RuntimeError, struct.error, UnicodeError,
)  # fmt: skip


class Unfit(Exception):
    """What is wrong, in a sentence for a person."""


@dataclass
class Budget:
    """What all levels of one file may use together."""

    bytes: int
    entries: int = MAX_ENTRIES

    def take_entry(self) -> None:
        self.entries -= 1
        if self.entries < 0:
            raise Unfit(f"The archive holds more than {MAX_ENTRIES} entries.")

    def take(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise Unfit("The archive unpacks to far more than it is.")


def problem(path: Path) -> str | None:
    """What is wrong with the archive at `path`, the first thing found; None when nothing is."""
    size = path.stat().st_size
    budget = Budget(min(MAX_BYTES, MAX_RATIO * max(size, SMALL)))
    try:
        with path.open("rb") as file:
            _check(file, size, budget, 1)
    except Unfit as error:
        return str(error)
    except _DAMAGE as error:
        # The readers raise whatever the bytes make them raise; their texts are for programmers.
        return f"The archive is damaged ({type(error).__name__})."
    return None


def _check(file: IO[bytes], size: int, budget: Budget, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Unfit(f"Archives are nested more than {MAX_DEPTH} deep.")
    kind = kind_of(file.read(512))
    file.seek(0)
    if kind == "zip archive":
        _check_zip(file, size, budget, depth)
    elif kind in ("tar archive", "gzip archive"):
        _check_tar(file, budget, depth)
    elif kind and kind.endswith("archive"):
        raise Unfit(f"A {kind} cannot be looked into.")
    else:
        raise Unfit("The archive is damaged (its beginning is not that of an archive).")


def _check_zip(file: IO[bytes], size: int, budget: Budget, depth: int) -> None:
    # Counted before the library reads them: it would make an object of half a kilobyte of each.
    if zip_count(file, size, budget.entries + 1) > budget.entries:
        raise Unfit(f"The archive holds more than {MAX_ENTRIES} entries.")
    names, packed, unpacked = Names(), 0, 0
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        for entry in entries:
            budget.take_entry()
            if wrong := names.problem(entry.orig_filename):
                raise Unfit(f"The archive is not safe. {wrong}")
            for wrong in zip_entries(entry):
                raise Unfit(f"The archive is not safe. {wrong}")
            packed += entry.compress_size
            unpacked += entry.file_size
        if packed > size:
            raise Unfit("The archive lies about its sizes: its entries are larger than itself, or overlap.")
        if unpacked > budget.bytes:
            raise Unfit("The archive unpacks to far more than it is.")
        for entry in entries:
            if not entry.is_dir():
                with archive.open(entry) as stream:
                    _look_into(entry.filename, stream, entry.file_size, budget, depth)


def _check_tar(file: IO[bytes], budget: Budget, depth: int) -> None:
    names = Names()
    for entry in tar_entries(file, budget.take):
        budget.take_entry()
        if wrong := names.problem(entry.name) or entry.wrong:
            raise Unfit(f"The archive is not safe. {wrong}")
        if entry.stream is not None:
            _look_into(entry.name, entry.stream, entry.size, budget, depth)


def _look_into(name: str, stream: IO[bytes], size: int, budget: Budget, depth: int) -> None:
    """Reads an entry to its end, which checks its sum; what is an archive itself is checked in turn."""
    head = stream.read(512)
    kind = kind_of(head) or ""
    found = len(head)
    budget.take(found)
    if not kind.endswith("archive"):
        for chunk in _rest(stream):
            found += len(chunk)
            budget.take(len(chunk))
    else:
        with tempfile.TemporaryFile() as inner:
            inner.write(head)
            for chunk in _rest(stream):
                found += len(chunk)
                budget.take(len(chunk))
                inner.write(chunk)
            inner.seek(0)
            _check(inner, found, budget, depth + 1)
    if found != size:
        raise Unfit(f"The archive lies about its sizes: '{printable(name)}' has {found} bytes instead of {size}.")


def _rest(stream: IO[bytes]) -> Iterator[Any]:
    while chunk := stream.read(_CHUNK):
        yield chunk
