"""The two kinds of archive, entry by entry: what zip and tar can say that a model has no use for."""

from __future__ import annotations

import gzip
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from engine.scan.magic import kind_of

_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_LONGEST_COMMENT = 65_535 + 22
_PACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def zip_count(file: IO[bytes], size: int, most: int) -> int:
    """How many entries the directory of a zip really holds, counted up to `most`; what it claims when more."""
    start, length, claimed = _directory(file, size)
    if claimed > most:
        return claimed
    file.seek(start)
    count, left = 0, length
    while left >= 46 and count < most:
        head = file.read(46)
        if len(head) < 46 or not head.startswith(b"PK\x01\x02"):
            break
        more = sum(struct.unpack("<HHH", head[28:34]))
        file.seek(more, 1)
        left -= 46 + more
        count += 1
    file.seek(0)
    return count


def _directory(file: IO[bytes], size: int) -> tuple[int, int, int]:
    """(where it starts, its length, how many entries it claims)."""
    file.seek(max(0, size - _LONGEST_COMMENT))
    tail = file.read(_LONGEST_COMMENT)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise zipfile.BadZipFile("no end")
    claimed, length = struct.unpack("<HI", tail[at + 10 : at + 16])
    end = size - len(tail) + at
    if tail[at - 20 : at - 16] == _LOCATOR64 and at >= 20:
        (where,) = struct.unpack("<Q", tail[at - 12 : at - 4])
        if where + 56 > size:
            raise zipfile.BadZipFile("zip64 end lies beyond the file")
        file.seek(where)
        record = file.read(56)
        if not record.startswith(_END64):
            raise zipfile.BadZipFile("no zip64 end")
        claimed, length = struct.unpack("<QQ", record[32:48])
        end = where
    if length > end:
        raise zipfile.BadZipFile("the directory is larger than the file")
    return end - length, length, claimed


def zip_entries(entry: zipfile.ZipInfo) -> Iterator[str]:
    """What is wrong with the kind of an entry."""
    mode = entry.external_attr >> 16
    if entry.flag_bits & 0x41:
        yield "It is encrypted."
    if mode and stat.S_IFMT(mode) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        yield "It holds a link." if stat.S_ISLNK(mode) else "It holds a device or another special file."
    if entry.compress_type not in _PACKED:
        yield "It is packed in a way that is not supported."


@dataclass(frozen=True)
class TarEntry:
    name: str
    size: int
    wrong: str | None
    stream: IO[bytes] | None


class Counted:
    """A stream that says how much of it was read, so that nobody unpacks without end."""

    def __init__(self, stream: Any, take: Callable[[int], None]) -> None:
        self._stream, self._take = stream, take

    def read(self, size: int = -1) -> bytes:
        data = bytes(self._stream.read(size))
        self._take(len(data))
        return data


def tar_entries(file: IO[bytes], take: Callable[[int], None]) -> Iterator[TarEntry]:
    """Every entry of a tar, plain or gzipped, read forward once; `take` hears of unpacked bytes."""
    stream: Any = file
    if kind_of(file.read(512)) == "gzip archive":
        file.seek(0)
        stream = Counted(gzip.GzipFile(fileobj=file), take)
    else:
        file.seek(0)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep them all
            opened = archive.extractfile(entry) if entry.isreg() and not entry.issparse() else None
            yield TarEntry(entry.name, entry.size, _wrong(entry), opened)


def _wrong(entry: tarfile.TarInfo) -> str | None:
    if entry.issym() or entry.islnk():
        return "It holds a link."
    if entry.issparse():
        return "It holds a sparse file."
    if not (entry.isreg() or entry.isdir()):
        return "It holds a device or another special file."
    return None
