"""Where bytes live: MLflow's artifact store for good, and a digest-verified cache on every node.

A file in the cache is named by its SHA-256 and was whole when it got that name (tmp → fsync → rename). It is
hashed again the first time a process opens it. Whatever does not match is put aside and never served.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from engine.errors import EngineError
from registry.mlflow import client, gateway
from registry.mlflow.folders import FolderLimits, listing, too_large
from registry.mlflow.locations import location_of
from slipway import paths
from slipway.api.problems import Unavailable

log = structlog.get_logger(__name__)

CHUNK = 1024 * 1024
AS_IT_IS = {"accept-encoding": "identity"}
_DIGEST = re.compile(r"[0-9a-f]{64}")
# (digest, inode, size, change time) of cached files that this process has hashed.
_verified: set[tuple[str, int, int, int]] = set()


def put_file(path: Path, *, run_id: str, artifact_path: str) -> str:
    """Streams a file to `artifact_path` (with its name) of a run and returns its `mlflow-artifacts:/…`."""
    uri = f"{gateway.run_read(run_id).artifact_uri}/{artifact_path}"
    target = client.artifact_url(client.store_path(uri))
    with path.open("rb") as stream, client.talking("storing a file"):
        response = client.http().put(
            target,
            content=_chunks(stream),
            headers={"content-length": str(os.fstat(stream.fileno()).st_size)},
            timeout=client.TRANSFER_TIMEOUT,
        )
    client.check(response, "storing a file")
    return uri


def fetch_file(uri: str, *, sha256: str | None, size_limit: int) -> Path:
    """The file at `uri` out of the cache, fetched if need be. Its name is its digest.

    Raises EngineError `digest` when the bytes are not those of `sha256`, `too_large` beyond `size_limit`.
    """
    if sha256 is not None and (cached := open_cached(sha256)) is not None:
        return cached
    with _incoming() as (stream, temporary):
        found, _ = _download(uri, stream, size_limit)
        _settle(stream)
        if sha256 is not None and found != sha256:
            aside = _quarantine(temporary, found)
            log.error("artifact_digest_wrong", uri=uri, expected=sha256, found=found, quarantine=str(aside))
            raise EngineError(
                f"The stored file does not have the digest it was registered with (expected {sha256[:12]}…, "
                f"found {found[:12]}…). It was changed or damaged; it has been put aside and is not used.",
                code="digest",
            )
        return _publish(temporary, found)


def fetch_folder(source: str, target: Path, *, limits: FolderLimits | None = None) -> list[dict[str, Any]]:
    """Downloads a folder into `target` (made; must be empty) and returns its manifest, sorted by path.

    `source` is anything that `location_of` understands. A name that leads elsewhere, differs from another
    only by case, or exceeds a limit refuses the whole folder.
    """
    limits = limits or FolderLimits()
    root = client.store_path(location_of(source))
    listed = listing(root, limits)
    if not listed:
        raise EngineError("There are no files at the source of this version.", code="empty")
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise ValueError(f"{target} is not empty.")
    manifest, left = [], limits.total_bytes
    try:
        for path in sorted(listed):
            place = target / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with _new_file(place) as stream:
                digest, size = _download(f"{client.SCHEME}{root}/{path}", stream, left)
            left -= size
            manifest.append({"path": path, "size": size, "sha256": digest})
    except BaseException:  # half a folder must neither be used nor stand in the way of the next try
        shutil.rmtree(target, ignore_errors=True)
        raise
    return manifest


def manifest_digest(manifest: list[dict[str, Any]]) -> str:
    """The digest that names a folder: SHA-256 over its sorted lines `sha256  path`, as `sha256sum | sort`."""
    lines = sorted(f"{row['sha256']}  {row['path']}\n" for row in manifest)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def open_cached(sha256: str) -> Path | None:
    """The cached file with this digest, hashed again once per process; a damaged one is put aside."""
    if not _DIGEST.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is not a SHA-256.")
    path = paths.cache() / sha256
    try:
        with path.open("rb") as stream:
            state = os.fstat(stream.fileno())
            mark = (sha256, state.st_ino, state.st_size, state.st_mtime_ns)
            if mark in _verified:
                return path
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    if found != sha256:
        log.error("cache_damaged", expected=sha256, found=found, quarantine=str(_quarantine(path, found)))
        return None
    _verified.add(mark)
    return path


def cache_add(path: Path, sha256: str) -> Path:
    """Copies a local file into the cache; EngineError `digest` when it is not what it is said to be."""
    if (cached := open_cached(sha256)) is not None:
        return cached
    digest = hashlib.sha256()
    with path.open("rb") as source, _incoming() as (stream, temporary):
        for chunk in _chunks(source):
            digest.update(chunk)
            stream.write(chunk)
        _settle(stream)
        if digest.hexdigest() != sha256:
            raise EngineError("The file changed after its digest was taken.", code="digest")
        return _publish(temporary, sha256)


# Parts


def _download(uri: str, stream: BinaryIO, size_limit: int) -> tuple[str, int]:
    """Writes the bytes at `uri` to `stream`; (digest, size)."""
    digest, size = hashlib.sha256(), 0
    address = client.artifact_url(client.store_path(uri))
    with (
        client.talking("fetching a file"),
        _room_on_disk(),
        client.http().stream("GET", address, headers=AS_IT_IS, timeout=client.TRANSFER_TIMEOUT) as response,
    ):
        client.check(response, "fetching a file")
        if int(response.headers.get("content-length", 0)) > size_limit:
            raise too_large(size_limit)
        for chunk in response.iter_raw(CHUNK):
            size += len(chunk)
            if size > size_limit:
                raise too_large(size_limit)
            digest.update(chunk)
            stream.write(chunk)
    return digest.hexdigest(), size


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk


@contextmanager
def _incoming() -> Iterator[tuple[BinaryIO, Path]]:
    """A temporary file in the cache, gone afterwards unless it was published or put aside."""
    folder = paths.cache() / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{os.getpid()}-{secrets.token_hex(8)}"
    try:
        with _room_on_disk(), _new_file(temporary) as stream:
            yield stream, temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that was not there before; never through a link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as stream:
        yield stream


@contextmanager
def _room_on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise Unavailable("The disk that holds Slipway's cache is full. Make room and try again.") from error


def _settle(stream: BinaryIO) -> None:
    stream.flush()
    os.fchmod(stream.fileno(), 0o444)
    os.fsync(stream.fileno())


def _publish(temporary: Path, sha256: str) -> Path:
    """Gives a whole, hashed file its name."""
    path = paths.cache() / sha256
    temporary.replace(path)
    state = path.stat()
    _verified.add((sha256, state.st_ino, state.st_size, state.st_mtime_ns))
    return path


def _quarantine(path: Path, found: str) -> Path:
    folder = paths.cache() / "quarantine"
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{found}-{secrets.token_hex(4)}"
    path.replace(aside)
    return aside
