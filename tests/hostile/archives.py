"""Hostile archives (cases 1 to 16), zip and tar, made by code."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable

LINK = stat.S_IFLNK | 0o777
TEXT = b"model weights " * 20


def zipped(*names: str, data: bytes = TEXT, mode: int = 0, packed: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with these names, whatever they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packed) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            entry = zipfile.ZipInfo("x")
            entry.filename = name  # the class would cut a name at NUL
            entry.compress_type = packed
            entry.external_attr = mode << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def tarred(*names: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = TEXT) -> bytes:
    """A tar with these names, all of one kind."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, link
            entry.size = len(data) if kind == tarfile.REGTYPE else 0
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zip_bomb() -> bytes:
    return zipped("weights", data=bytes(300 << 20))


def tar_bomb() -> bytes:
    return gzip.compress(tarred("weights", data=bytes(300 << 20)), 1)


def nested(depth: int = 20) -> bytes:
    data = zipped("weights")
    for _ in range(depth):
        data = zipped("inner.zip", data=data)
    return data


def nested_in_tar(depth: int = 20) -> bytes:
    data = tarred("weights")
    for _ in range(depth):
        data = tarred("inner.tar", data=data)
    return data


def million_entries() -> bytes:
    """A directory of a million entries, all of them the one file; its end says that there is one."""
    head = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, 6, 0) + b"000000"
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0)
    directory = b"".join(entry + b"%06d" % number for number in range(1_000_000))
    return head + directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), len(head), 0)


def many_in_tar() -> bytes:
    return gzip.compress(tarred(*(f"{number}" for number in range(10_001)), data=b""), 1)


def wrong_sum() -> bytes:
    data = zipped("weights", packed=zipfile.ZIP_STORED)
    return data.replace(TEXT, b"M" + TEXT[1:])


def lying_zip64() -> bytes:
    """Sizes of an exabyte in the 64-bit field of the directory."""
    data = zipped("weights", packed=zipfile.ZIP_STORED)
    at, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    entry = bytearray(data[at:end])
    entry[24:28] = b"\xff" * 4
    extra = struct.pack("<HHQ", 1, 8, 1 << 60)
    entry[30:32] = struct.pack("<H", len(extra))
    entry += extra
    last = bytearray(data[end:])
    last[12:16] = struct.pack("<L", len(entry))
    return data[:at] + bytes(entry) + bytes(last)


def lying_zip64_end() -> bytes:
    """A 64-bit end of the directory with 2^62 entries."""
    data = zipped("weights")
    end = data.rindex(b"PK\x05\x06")
    size, start = struct.unpack("<LL", data[end + 12 : end + 20])
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1 << 62, 1 << 62, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    return data[:end] + record + locator + data[end:]


def lying_tar() -> bytes:
    """A tar whose only file says that it has 8 GB."""
    data = bytearray(tarred("weights"))
    data[124:136] = b"77777777777\x00"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\x00 " % sum(data[:512])
    return bytes(data)


def encrypted() -> bytes:
    data = bytearray(zipped("weights"))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    return bytes(data)


Maker = Callable[[], bytes]
# number, name, suffix of the model file, maker, words of the cause
ARCHIVES: list[tuple[int, str, str, Maker, str]] = [
    (1, "parent in zip", ".keras", lambda: zipped("../../etc/cron.d/x"), "leads outside"),
    (1, "parent in tar", ".mar", lambda: tarred("a/../../x"), "leads outside"),
    (2, "absolute in zip", ".keras", lambda: zipped("/etc/passwd"), "absolute"),
    (2, "absolute in tar", ".mar", lambda: tarred("/etc/passwd"), "absolute"),
    (2, "drive letter", ".npz", lambda: zipped("C:\\windows\\x"), "absolute"),
    (3, "symlink in zip", ".skops", lambda: zipped("weights", data=b"/etc/passwd", mode=LINK), "link"),
    (3, "symlink in tar", ".mar", lambda: tarred("weights", kind=tarfile.SYMTYPE, link="/etc/passwd"), "link"),
    (4, "hardlink in tar", ".mar", lambda: tarred("weights", kind=tarfile.LNKTYPE, link="/etc/passwd"), "link"),
    (5, "device in zip", ".keras", lambda: zipped("weights", mode=stat.S_IFBLK | 0o600), "device"),
    (5, "device in tar", ".mar", lambda: tarred("weights", kind=tarfile.CHRTYPE), "device"),
    (5, "FIFO in tar", ".mar", lambda: tarred("weights", kind=tarfile.FIFOTYPE), "device"),
    (6, "ratio bomb in zip", ".keras", zip_bomb, "far more than it is"),
    (6, "ratio bomb in tar", ".mar", tar_bomb, "far more than it is"),
    (7, "20 zips deep", ".keras", nested, "nested"),
    (7, "20 tars deep", ".mar", nested_in_tar, "nested"),
    (8, "a million entries", ".keras", million_entries, "more than 10000 entries"),
    (8, "too many entries in tar", ".mar", many_in_tar, "more than 10000 entries"),
    (9, "duplicate names in zip", ".keras", lambda: zipped("a", "a"), "twice"),
    (9, "duplicate names in tar", ".mar", lambda: tarred("a", "./b", "a"), "twice"),
    (10, "names equal but for case", ".skops", lambda: zipped("schema.json", "Schema.JSON"), "but for case"),
    (10, "names equal but for case in tar", ".mar", lambda: tarred("a", "A"), "but for case"),
    (11, "NUL in a name", ".keras", lambda: zipped("a\0.txt"), "cannot be seen"),
    (11, "right-to-left mark in a name", ".keras", lambda: zipped("\u202etxt.a"), "cannot be seen"),
    (11, "newline in a name", ".mar", lambda: tarred("a\nb"), "cannot be seen"),
    (12, "4 kB name", ".keras", lambda: zipped("a" * 4096), "longer than 1024 bytes"),
    (12, "4 kB name in tar", ".mar", lambda: tarred("a" * 4096), "longer than 1024 bytes"),
    (13, "truncated zip", ".keras", lambda: zipped("weights")[:-30], "damaged"),
    (13, "truncated tar", ".mar", lambda: tarred("weights", data=bytes(range(256)) * 99)[:9000], "damaged"),
    (14, "wrong CRC", ".keras", wrong_sum, "damaged"),
    (15, "lying zip64 size", ".keras", lying_zip64, "far more than it is"),
    (15, "lying zip64 end", ".keras", lying_zip64_end, "entries"),
    (15, "lying size in tar", ".mar", lying_tar, "damaged"),
    (16, "encrypted", ".keras", encrypted, "encrypted"),
]
