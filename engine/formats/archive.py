"""A folder as one file: an uncompressed tar whose bytes depend on names and contents alone."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath

from engine.errors import EngineError

MAX_FILES = 10_000
MAX_BYTES = 16 * 1024**3


def pack(folder: Path, file: Path) -> None:
    """Writes the plain files of `folder` to the tar `file`: sorted by name, time 0, owner 0, mode 0644.

    Empty folders are left out. EngineError(code="archive") for links and special files, which would mean
    something else where it is unpacked.
    """
    paths = sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix())
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                continue
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or not path.is_file():
                raise _wrong(f"{name[:100]} is not a plain file.")
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                archive.addfile(entry, content)


def unpack(file: Path, folder: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
    """Writes the files of the tar `file` under `folder`, which is made if it is not there.

    Anyone may have written it. EngineError(field="file", code="archive") for anything but plain files and
    folders, for names that are absolute, lead outside or come twice, for more than `max_files` entries or
    `max_bytes` bytes, and for a damaged file; what was written until then stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[PurePosixPath] = set()
    total = count = 0
    try:
        with tarfile.open(file, "r:") as archive:
            for entry in archive:
                name = _name(entry)
                count, total = count + 1, total + entry.size
                if count > max_files or total > max_bytes:
                    raise _wrong("The archive holds too many files or too much.")
                if entry.isdir():
                    continue
                if name in taken or (folder / name).exists():
                    raise _wrong(f"The archive holds {str(name)[:100]} twice.")
                taken.add(name)
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(entry)
                assert content is not None
                with target.open("xb") as out:
                    shutil.copyfileobj(content, out, 1 << 20)
            end = archive.offset
        with file.open("rb") as stream:
            # tarfile takes half a header for the end; a whole archive ends with two empty blocks.
            stream.seek(end)
            if stream.read(2 * tarfile.BLOCKSIZE) != bytes(2 * tarfile.BLOCKSIZE):
                raise _wrong("The archive ends too early.")
    except (tarfile.TarError, ValueError, OSError) as error:
        # OSError: a name too long, or a file where another entry needs a folder.
        raise _wrong(f"The archive is damaged ({type(error).__name__}).") from error


def _name(entry: tarfile.TarInfo) -> PurePosixPath:
    if not (entry.isdir() or entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE)) or entry.issparse():
        raise _wrong("The archive holds a link or a special file.")
    parts = entry.name.rstrip("/").split("/")
    if entry.name.startswith("/") or ".." in parts or not any(part not in ("", ".") for part in parts):
        raise _wrong("The archive holds names that lead outside.")
    if "\\" in entry.name or "\0" in entry.name:
        raise _wrong("The archive holds names that not every system takes.")
    return PurePosixPath(entry.name)


def _wrong(message: str) -> EngineError:
    return EngineError(message, field="file", code="archive")
