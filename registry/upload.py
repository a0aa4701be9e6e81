"""An uploaded ONNX or PMML file: streamed to disk, hashed, checked in the sandbox, stored, registered.

Nothing is parsed here: the web process only counts and hashes bytes, the sandboxed child reads them. The
version appears when everything has succeeded; a refused or broken upload leaves nothing.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine import sandbox
from registry import storage
from registry.intake import version_from_upload
from registry.mlflow import gateway
from registry.models import Format, Model, Task, Version, name_validator
from slipway import paths
from slipway.accounts import policy
from slipway.accounts.models import Project, User
from slipway.api.problems import Conflict, Problem
from slipway.environment import environment

CHUNK = 1024 * 1024
CHECK_LIMITS = sandbox.Limits(seconds=30, memory_mb=3072)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,150}\.(onnx|pmml)")


@dataclass(frozen=True)
class Received:
    path: Path
    sha256: str
    size: int


@contextmanager
def received(stream: BinaryIO, declared: int | None) -> Iterator[Received]:
    """Streams a body to a scratch file; refuses too much, too little and nothing at all."""
    limit = environment.max_upload_mb * 1024 * 1024
    if declared is not None and declared > limit:
        raise _too_large()
    paths.scratch().mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="upload-", dir=paths.scratch()))
    try:
        digest, size, path = hashlib.sha256(), 0, folder / "model.onnx"
        try:
            with path.open("wb") as target:
                while chunk := stream.read(CHUNK):
                    size += len(chunk)
                    if size > limit:
                        raise _too_large()
                    digest.update(chunk)
                    target.write(chunk)
        except OSError as error:
            raise Problem(
                f"The file could not be stored: {error.strerror}.", field="file", status=507, code="storage"
            ) from error
        if declared is not None and size != declared:
            raise Problem(
                f"The upload broke off: {size} of {declared} bytes arrived.",
                field="file",
                status=400,
                code="truncated",
            )
        if size == 0:
            raise Problem("The file is empty.", field="file", code="empty")
        yield Received(path, digest.hexdigest(), size)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _too_large() -> Problem:
    return Problem(
        f"The file is larger than {environment.max_upload_mb} MB (SLIPWAY_MAX_UPLOAD_MB).",
        field="file",
        status=413,
        code="too_large",
    )


def declared_size(headers: Mapping[str, str]) -> int | None:
    """The Content-Length of an upload; refuses what the headers (as WSGI names them) already show to be no file."""
    length = headers.get("CONTENT_LENGTH") or ""
    if not length and "HTTP_TRANSFER_ENCODING" in headers:
        raise Problem("Send the size of the file as Content-Length.", field="file", status=411, code="length")
    # There is no resuming: the rest of a file would be taken for the whole.
    if "HTTP_CONTENT_RANGE" in headers:
        raise Problem("A part of a file is not taken: send the whole of it.", field="file", status=400, code="part")
    if (headers.get("CONTENT_TYPE") or "").lower().startswith("multipart/"):
        message = "Send the file itself as the body, not a form (multipart/form-data)."
        raise Problem(message, field="file", status=415, code="unsupported_media_type")
    return int(length) if length.isdigit() else None


def version_upload(
    *,
    actor: User,
    project: Project,
    model_name: str,
    task: str,
    file_name: str,
    stream: BinaryIO,
    declared: int | None,
) -> tuple[Version, str]:
    """Takes an ONNX or PMML upload in and returns the new version with the file's digest."""
    policy.require(actor, policy.WRITE, project)
    if not _FILE_NAME.fullmatch(file_name):
        raise Problem("The file name must be plain and end in .onnx or .pmml.", field="file_name")
    if not re.fullmatch(name_validator.regex, model_name):
        raise Problem(str(name_validator.message), field="model")
    if task and task not in Task.values:
        raise Problem(f"There is no task “{task}”.", field="task")
    if Model.objects.filter(project=project, name=model_name, archived_at__isnull=False).exists():
        raise Conflict("This model is archived; restore it before you add versions.", field="model")
    kind = file_name.rpartition(".")[2]
    with received(stream, declared) as file:
        with tempfile.TemporaryDirectory(prefix="check-", dir=paths.scratch()) as scratch:
            facts = sandbox.run(
                f"engine.scan.tasks:check_{kind}",
                params={},
                inputs={"file": file.path},
                scratch=Path(scratch),
                limits=CHECK_LIMITS,
            ).value
        run_id = gateway.run_ensure(
            "slipway/uploads",
            tags={"slipway.key": f"upload:{project.pk}:{model_name}:{file.sha256}"},
            run_name=f"{model_name} upload",
        )
        # A PMML file is a source, and sources are folders: it lies alone in one, by one name whatever it was called,
        # so that the same bytes sent again to this run leave the folder as it is.
        place = f"upload/{file_name}" if kind == Format.ONNX else f"source/model.{kind}"
        uri = storage.put_file(file.path, run_id=run_id, artifact_path=place)
        storage.cache_add(file.path, sha256=file.sha256)
        version = version_from_upload(
            actor=actor,
            project=project,
            model_name=model_name,
            task=task,
            sha256=file.sha256,
            size=file.size,
            file_name=file_name,
            uri=uri,
            run_id=run_id,
            facts=facts,
            framework=kind,
        )
    return version, file.sha256
