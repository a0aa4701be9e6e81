"""Large files: streamed from and to disk, counted, hashed, with a progress bar on stderr."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slipway.cli import output
from slipway.cli.client import Api, Json, check, decoded, reaching
from slipway.cli.errors import CliError, ExitCode

CHUNK = 1024 * 1024


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Call it with the bytes so far. Shown only where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=output.console(stderr=True), transient=True) as progress:
        task = progress.add_task(output.cell(what), total=total)

        def move(done: int) -> None:
            text = f"{what}: the server checks it" if done >= total else what
            progress.update(task, completed=done, description=output.cell(text))

        yield move


class Body:
    """A file as a request body of exactly the size it had at the start."""

    def __init__(self, path: Path, moved: Callable[[int], None]) -> None:
        self.path, self.moved = path, moved
        self.stream = path.open("rb")
        self.size = os.fstat(self.stream.fileno()).st_size
        self.sent = 0
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        with self.stream:
            while chunk := self.stream.read(min(CHUNK, self.size - self.sent)):
                self.digest.update(chunk)
                self.sent += len(chunk)
                yield chunk
                self.moved(self.sent)
        if self.sent != self.size:
            raise CliError(f"{self.path} became shorter while it was read. Nothing was registered.", ExitCode.FAILED)


def plain_name(name: str) -> str:
    """A file name that the server takes: no folders, no dots in front, nothing unusual."""
    kept = re.sub(r"[^A-Za-z0-9 ._-]", "-", Path(name).name).lstrip(" ._-")[-150:].lstrip(" ._-")
    return kept or "file"


def upload(api: Api, path: Path, *, model: str, task: str | None, project: str | None) -> Json:
    """Sends an ONNX file and returns the new version; an error says what became of the bytes."""
    import httpx

    asked = {"model": model, "task": task, "project": project, "file_name": plain_name(path.name)}
    params = {key: value for key, value in asked.items() if value}
    body: Body | None = None
    try:
        with bar(f"upload {path.name}", path.stat().st_size) as moved, reaching(api.connection.url):
            body = Body(path, moved)
            response = api.http.post(
                api.url("/versions/upload"),
                params=params,
                content=body,
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(body.size),
                    "Idempotency-Key": uuid.uuid4().hex,
                },
                timeout=httpx.Timeout(900, connect=10),
            )
            check(response)
            return dict(decoded(response))
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror or error}.", ExitCode.FAILED) from None
    except CliError as error:
        if error.code is ExitCode.UNREACHABLE and body is not None and body.sent:
            error.lines = [_aftermath(api, body, model)]
        raise


def _aftermath(api: Api, body: Body, model: str) -> str:
    """What became of an upload whose answer was lost. Registration is the server's last step."""
    if body.sent < body.size:
        so_far = f"{output.size(body.sent)} of {output.size(body.size)} were sent"
        return f"{so_far}; a broken upload leaves nothing behind. Run the same command again."
    digest = body.digest.hexdigest()
    try:
        found = api.find("/artifacts", sha256=digest)
    except CliError:
        found = []
    if found:
        return (
            f"All of it was sent, and the server holds these bytes (version {found[-1]['version']}). Look with "
            f"`slipway versions list --model {model}` before you send them again: that would be one more version."
        )
    return (
        f"All of it was sent, but no version has its SHA-256 {digest[:12]}… so far. Look with "
        f"`slipway versions list --model {model}`; if it is not there in a minute, run the same command again."
    )


def download(api: Api, row: Json, target: Path, *, force: bool) -> Path:
    """Fetches an artifact's bytes: into a temporary file, checked against the digest, then renamed."""
    if target.is_dir():
        target = target / plain_name(str(row["file_name"]))
    if target.exists() and not force:
        raise CliError(f"{target} exists. Say --force to replace it.", ExitCode.USAGE)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "wb") as stream:
            found = _receive(api, row, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if found != row["sha256"]:
            raise CliError(
                f"What came is not the artifact (expected {row['sha256'][:12]}…, got {found[:12]}…): thrown away.",
                ExitCode.SERVER,
            )
        temporary.replace(target)
    except OSError as error:
        raise CliError(f"{target} cannot be written: {error.strerror or error}.", ExitCode.FAILED) from None
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _receive(api: Api, row: Json, stream: Any) -> str:
    """Writes the bytes to `stream` and returns their SHA-256."""
    digest, size, url = hashlib.sha256(), 0, api.url(f"/artifacts/{row['id']}/content")
    accept = {"Accept": "*/*", "Accept-Encoding": "identity"}
    with (
        bar(f"download {row['file_name']}", row["size"]) as moved,
        reaching(url),
        api.http.stream("GET", url, headers=accept) as response,
    ):
        check(response)
        for chunk in response.iter_bytes(CHUNK):
            size += len(chunk)
            if size > row["size"]:
                raise CliError("More came than the artifact has: thrown away.", ExitCode.SERVER)
            digest.update(chunk)
            stream.write(chunk)
            moved(size)
    return digest.hexdigest()
