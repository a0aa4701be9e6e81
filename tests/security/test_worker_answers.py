"""What a sandboxed child says is a stranger's word: it names no file, and it makes no file clean."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.sandbox import SandboxResult
from registry.models import Version
from tests.engine.onnx_files import relu
from workers import common, export

ANSWER = {
    "format": "pmml",
    "signature": {"inputs": [], "outputs": []},
    "opset": None,
    "labels": None,
    "parity": {"passed": True, "rows": 1, "max_abs": 0.0, "agreement": 1.0, "worst": []},
    "tolerance": 0.0,
    "rows_from": "given",
    "environment": None,
}


class Job:
    """A job that remembers nothing."""

    id = 1
    stop = None
    stop_reason = ""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        yield

    def once(self, key: str, effect: Callable[[], Any]) -> Any:
        return effect()

    def note(self, *args: Any) -> None:
        """Log, progress and the run's id."""

    log = progress = note_run = note


@pytest.fixture
def exporting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
    """Runs an export whose child wrote `content` and answered `answer`; gives what would have been stored."""
    stored: list[Path] = []

    def run(version: Version, answer: dict[str, Any], content: bytes | None, name: str = "onnx") -> list[Path]:
        out = tmp_path / "out"
        out.mkdir()
        if content is not None:
            (out / "model.onnx").write_bytes(content)
            (out / "model.ort").write_bytes(b"whatever the child likes")
        made = SandboxResult(value={**ANSWER, **answer}, files=out, seconds=1.0, peak_memory_mb=1.0)
        monkeypatch.setattr(export, "scratch_folder", lambda job: contextlib.nullcontext(tmp_path))
        monkeypatch.setattr(export, "source_and_rows", lambda version, scratch: ({"source": tmp_path}, None))

        def child(job: Any, task: str, **more: Any) -> SandboxResult:
            return made if task == "engine.export.tasks:export" else common.sandboxed(job, task, **more)

        monkeypatch.setattr(export, "sandboxed", child)
        monkeypatch.setattr(export, "job_run", lambda *args: "run")
        monkeypatch.setattr(export.gateway, "run_log", lambda *args, **kwargs: None)
        monkeypatch.setattr(export.gateway, "run_finish", lambda *args, **kwargs: None)
        monkeypatch.setattr(export.storage, "put_file", lambda path, **kwargs: stored.append(path) or "uri")
        monkeypatch.setattr(export.storage, "cache_add", lambda path, **kwargs: stored.append(path))
        params = export.ExportParams(version_id=version.pk, exporter=name)
        export.export_version(Job(), params)  # type: ignore[arg-type]
        return stored

    return run


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret-key"
    path.write_text("the platform's key")
    return path


@pytest.mark.parametrize("way", ["absolute", "upwards"])
def test_export_stores_no_other_file_when_the_answer_names_one(
    way: str, exporting: Callable[..., list[Path]], new_version: Callable[..., Version], secret: Path
) -> None:
    name = str(secret) if way == "absolute" else f"../{secret.name}"
    with pytest.raises(EngineError, match="without the file"):
        exporting(new_version(framework="sklearn"), {"file": name}, None)
    assert secret.read_text() == "the platform's key"


def test_export_refuses_its_file_when_the_child_only_says_that_it_is_fit(
    exporting: Callable[..., list[Path]], new_version: Callable[..., Version]
) -> None:
    with pytest.raises(EngineError) as refused:
        exporting(new_version(framework="sklearn"), {"file": "model.onnx", "format": "onnx"}, b"not ONNX at all")
    assert refused.value.field == "file"


def test_ort_file_is_made_again_of_the_checked_onnx_file_when_the_child_wrote_its_own(
    exporting: Callable[..., list[Path]], new_version: Callable[..., Version]
) -> None:
    stored = exporting(new_version(framework="sklearn"), {"format": "ort"}, relu().SerializeToString(), "ort")
    assert stored and all(path.read_bytes()[4:8] == b"ORTM" for path in stored)


def test_ort_file_is_refused_when_the_onnx_file_is_unfit(
    exporting: Callable[..., list[Path]], new_version: Callable[..., Version]
) -> None:
    with pytest.raises(EngineError) as refused:
        exporting(new_version(framework="sklearn"), {"format": "ort"}, b"not ONNX at all", "ort")
    assert refused.value.field == "file"


def test_made_file_is_refused_when_it_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out" / "model.onnx").mkdir(parents=True)
    made = SandboxResult(value={}, files=tmp_path / "out", seconds=1.0, peak_memory_mb=1.0)
    with pytest.raises(EngineError):
        common.made_file(made, "model.onnx", tmp_path / "taken")
