"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

from pathlib import Path

_MAGIC: list[tuple[bytes, str]] = [
    (b"PK\x03\x04", "zip archive"),
    (b"PK\x05\x06", "zip archive"),
    (b"\x1f\x8b\x08", "gzip archive"),
    (b"BZh", "bzip2 archive"),
    (b"\xfd7zXZ\x00", "xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "7z archive"),
    (b"Rar!\x1a\x07", "rar archive"),
    (b"\x28\xb5\x2f\xfd", "zstandard archive"),
    (b"\x7fELF", "program"),
    (b"MZ", "program"),
    (b"#!", "script"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file"),
    (b"\x93NUMPY", "numpy array"),
    (b"\x89PNG", "picture"),
    (b"%PDF", "PDF document"),
    (b"SQLite format 3\x00", "SQLite database"),
    (b"<?xml", "XML document"),
]
_OLD_PICKLE = (b"(dp", b"(lp", b"(i", b"c__builtin__\n", b"cposix\n", b"cos\n", b"ccopy_reg\n", b"cnt\n")


def kind_of(head: bytes) -> str | None:
    """A plain name for what starts with `head` (512 bytes are enough), None when nothing is known."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[257:262] == b"ustar":
        return "tar archive"
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return "pickle"
    if head.startswith(_OLD_PICKLE):
        return "pickle"
    if head[4:8] == b"TFL3":
        return "TensorFlow Lite model"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors file"
    if head.lstrip()[:1] in (b"{", b"[", b"<") and b"\x00" not in head:
        return "text document"
    return None


def kind_of_file(path: Path) -> str | None:
    with path.open("rb") as file:
        return kind_of(file.read(512))
