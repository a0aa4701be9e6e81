"""Generated secrets: made once, mode 600, in a folder that only the owner can enter."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from slipway.launch.errors import LaunchError


def private_folder(folder: Path) -> Path:
    """Make `folder` (mode 700); refuse one that is a link or another user's."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = folder.lstat()
    if folder.is_symlink() or state.st_uid != os.geteuid():
        raise LaunchError(f"The folder {folder} belongs to another user; remove it or set SLIPWAY_HOME.")
    folder.chmod(0o700)
    return folder


def secret(folder: Path, name: str, *, length: int = 48) -> str:
    """The secret `name` in `folder`, made on first use."""
    path = folder / name
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        value = secrets.token_urlsafe(length)
        write_private(path, value + "\n")
        return value


def write_private(path: Path, text: str) -> None:
    """Write a file that only the owner can read, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(path)
