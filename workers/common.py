"""What several queues need: a scratch folder, the sandbox with the job's log, inputs by digest."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import sandbox
from engine.errors import EngineError
from registry import storage
from registry.models import Artifact, Dataset, Format, Version
from registry.selectors import evaluation_set
from slipway import paths
from slipway.jobs.context import Interrupted, JobContext, Stopped

FETCH_LIMIT = 4 * 1024**3
# Nothing that a model does to itself: an administrator, a supervisor or the kernel, out of memory, ended it.
ENDED_FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")


@contextmanager
def scratch_folder(job: JobContext) -> Iterator[Path]:
    """A folder of this attempt alone, gone afterwards; so is what killed attempts of the job left here."""
    root = paths.scratch()
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"job-{job.id}-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"job-{job.id}-{job.attempt}-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sandboxed(
    job: JobContext,
    task: str,
    *,
    params: Mapping[str, Any],
    inputs: Mapping[str, Path],
    scratch: Path,
    limits: sandbox.Limits | None = None,
    python: Path | None = None,
) -> sandbox.SandboxResult:
    """Runs an engine task in the sandbox; its output goes to the job's log, and the job's end ends it."""
    try:
        return sandbox.run(
            task,
            params=params,
            inputs=inputs,
            scratch=scratch,
            limits=limits or sandbox.Limits(),
            python=python,
            on_line=job.log,
            stop=job.stop,
        )
    except EngineError as error:
        if error.code == "stopped":
            raise Stopped(job.stop_reason) from error
        if error.code == "crash" and any(name in str(error) for name in ENDED_FROM_OUTSIDE):
            raise Interrupted(str(error)) from error
        raise


def made_file(made: sandbox.SandboxResult, name: str, target: Path) -> Path:
    """The file that a sandboxed task was to write, moved to `target`.

    By the name that we know, never by one from the task's answer: foreign code ran there, and its answer may
    name any file of this machine.
    """
    file = made.files / name
    if not file.is_file():
        raise EngineError(f"The work ended without the file {name}.", code="result")
    return file.rename(target)


def onnx_facts(job: JobContext, file: Path, scratch: Path) -> dict[str, Any]:
    """What `check_onnx` finds in a fresh child: what foreign code says about its own file is worth nothing."""
    return file_facts(job, "check_onnx", file, scratch)


def file_facts(job: JobContext, check: str, file: Path, scratch: Path) -> dict[str, Any]:
    """What a check of `engine.scan.tasks` finds in a fresh child. EngineError for a file that is not fit."""
    return sandboxed(job, f"engine.scan.tasks:{check}", params={}, inputs={"file": file}, scratch=scratch).value


def source_of(version: Version) -> Artifact:
    """What a version came as: its source folder, or the ONNX file of an upload."""
    came = Artifact.objects.filter(version=version, parent=None, format__in=[Format.SOURCE, Format.ONNX])
    found = came.filter(format=Format.SOURCE).first() or came.order_by("id").first()
    if found is None:
        raise EngineError("Nothing of what this version came as is stored.", code="source")
    return found


def source_folder(version: Version, target: Path) -> Path:
    """The version's source, fetched and proven to be what was registered."""
    artifact = source_of(version)
    if artifact.format != Format.SOURCE:
        target.mkdir(parents=True, exist_ok=True)
        placed(artifact_file(artifact), target / "model.onnx")
        return target
    manifest = storage.fetch_folder(artifact.uri, target)
    if storage.manifest_digest(manifest) != artifact.sha256:
        raise EngineError("The source in MLflow is no longer what was registered (its digest differs).", code="digest")
    return target


def artifact_file(artifact: Artifact) -> Path:
    """The artifact's file in this node's cache, its digest checked."""
    return storage.fetch_file(artifact.uri, sha256=artifact.sha256, size_limit=FETCH_LIMIT)


def source_and_rows(version: Version, scratch: Path) -> tuple[dict[str, Path], Dataset | None]:
    """What a task that compares with a version's source is given, {"source"} and where there are any {"rows"}, and the
    data set of these rows."""
    inputs = {"source": source_folder(version, scratch / "source")}
    dataset, rows = evaluation_rows(version)
    if rows and dataset:
        inputs["rows"] = placed(rows, scratch / dataset.file_name)
    return inputs, dataset


def evaluation_rows(version: Version) -> tuple[Dataset | None, Path | None]:
    """The newest evaluation set of the version, or of its model, with its file."""
    dataset = evaluation_set(version)
    return dataset, dataset_file(dataset) if dataset else None


def dataset_file(dataset: Dataset) -> Path:
    """The rows in this node's cache, their digest checked."""
    return storage.fetch_file(dataset.uri, sha256=dataset.sha256, size_limit=FETCH_LIMIT)


def placed(source: Path, target: Path) -> Path:
    """A copy of a cached file under the name that readers go by (the cache names files by digest).

    Copied by the system, not through memory: a model may have gigabytes. Not linked: the sandbox refuses links.
    """
    shutil.copyfile(source, target)
    return target


def file_stored(job: JobContext, file: Path, *, sha256: str, run_id: str, folder: str, name: str) -> str:
    """The address of a file that is in MLflow, once however often the job repeats, and in this node's cache."""
    place = f"{folder}/{sha256[:16]}/{name}"
    uri = job.once(f"store:{sha256}", lambda: storage.put_file(file, run_id=run_id, artifact_path=place))
    storage.cache_add(file, sha256=sha256)
    return str(uri)
