"""Generated secrets and keys: made once, mode 600, in a folder that only the owner can enter."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from engine.formats import signing
from slipway import paths
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


def signing_keys() -> None:
    """The key that signs artifacts, made on first use, and its public half among those that servers trust.

    A key that was replaced stays trusted until a person takes it out of the file.
    """
    path = paths.signing_key()
    own = path == paths.secrets() / "signing-key.pem"
    try:
        if own and not path.exists():
            write_private(private_folder(path.parent) / path.name, signing.generate().decode())
        key = signing.private_key(path.read_bytes())
    except FileNotFoundError:
        raise LaunchError(f"SLIPWAY_SIGNING_KEY_FILE is {path}, but there is no such file.") from None
    except PermissionError:
        raise LaunchError(f"You may not read the signing key {path}.") from None
    except signing.SignatureError as error:
        raise LaunchError(f"The signing key {path} cannot be used: {error}.") from None
    _trust(paths.trusted_keys(), signing.public_pem(key).decode(), signing.key_id(key.public_key()))


def _trust(file: Path, public: str, key_id: str) -> None:
    known = file.read_text() if file.exists() else ""
    try:
        if known.strip() and key_id in signing.trusted_keys(known.encode()):
            return
    except signing.SignatureError as error:
        raise LaunchError(f"The file of trusted keys {file} cannot be used: {error}.") from None
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(file, (known.rstrip("\n") + "\n" + public).lstrip("\n"), mode=0o644)


def write_private(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file that only the owner can change (and, but for another `mode`, read), whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(path)
