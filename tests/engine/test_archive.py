"""A folder as one tar, and tars from strangers."""

from __future__ import annotations

import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.formats import archive


def _folder(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 3)
    return root


def test_bytes_are_the_same_when_only_times_modes_and_order_differ(tmp_path: Path) -> None:
    names = ["1/saved_model.pb", "1/variables/variables.index", "1/variables/" + "é" * 120, "a"]
    one, two = _folder(tmp_path / "one", names), _folder(tmp_path / "two", names[::-1])
    os.utime(two / "a", (time.time(), 1))
    (two / "a").chmod(0o700)
    (two / "empty").mkdir()
    archive.pack(one, tmp_path / "one.tar")
    archive.pack(two, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    archive.unpack(tmp_path / "one.tar", tmp_path / "back")
    for name in names:
        assert (tmp_path / "back" / name).read_bytes() == name.encode() * 3


def test_packing_is_refused_when_a_link_is_inside(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "folder", ["a"])
    (folder / "b").symlink_to("/etc/passwd")
    with pytest.raises(EngineError, match="b is not a plain file"):
        archive.pack(folder, tmp_path / "x.tar")


def _entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    entry.size = 4 if kind == tarfile.REGTYPE else 0
    return entry


HOSTILE = {
    "parent": [_entry("../out")],
    "hidden parent": [_entry("a/../../out")],
    "absolute": [_entry("/tmp/out")],
    "backslash": [_entry("a\\b")],
    "no name": [_entry(".")],
    "symbolic link": [_entry("a", tarfile.SYMTYPE, "/etc/passwd")],
    "hard link": [_entry("a"), _entry("b", tarfile.LNKTYPE, "a")],
    "link as a folder": [_entry("a", tarfile.SYMTYPE, "/tmp"), _entry("a/out")],
    "device": [_entry("a", tarfile.CHRTYPE)],
    "pipe": [_entry("a", tarfile.FIFOTYPE)],
    "twice": [_entry("a"), _entry("a")],
    "twice by another name": [_entry("b/a"), _entry("b/./a")],
    "file as a folder": [_entry("a"), _entry("a/b")],
    "folder as a file": [_entry("a/b"), _entry("a")],
    "long name": [_entry("x" * 300)],
    "too many": [_entry(f"f{i}") for i in range(11)],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_unpacking_is_refused_when_the_archive_is_hostile(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in HOSTILE[name]:
            tar.addfile(entry, io.BytesIO(b"evil"[: entry.size]))
    with pytest.raises(EngineError) as caught:
        archive.unpack(path, tmp_path / "to" / "in", max_files=10)
    assert caught.value.field == "file" and caught.value.code == "archive"
    assert [each.name for each in (tmp_path / "to").iterdir()] == ["in"]
    assert not any(each.is_symlink() for each in (tmp_path / "to").rglob("*"))


def test_unpacking_is_refused_when_it_is_too_much_or_cut_off(tmp_path: Path) -> None:
    archive.pack(_folder(tmp_path / "folder", ["a" * 90, "b" * 90]), tmp_path / "x.tar")
    with pytest.raises(EngineError, match="too much"):
        archive.unpack(tmp_path / "x.tar", tmp_path / "one", max_bytes=400)
    content = (tmp_path / "x.tar").read_bytes()
    for cut in (100, 600, 1024, 1100, 2048):
        (tmp_path / "cut.tar").write_bytes(content[:cut])
        with pytest.raises(EngineError):
            archive.unpack(tmp_path / "cut.tar", tmp_path / f"to{cut}")
    (tmp_path / "gzip.tar").write_bytes(b"\x1f\x8b\x08" + b"\0" * 1000)
    with pytest.raises(EngineError, match="damaged"):
        archive.unpack(tmp_path / "gzip.tar", tmp_path / "gzip")
