"""Bytes: what is fetched is what was registered, or nothing."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from registry import storage
from registry.mlflow import client, gateway
from slipway import paths
from slipway.api.problems import Unavailable


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def _own_cache(use_mlflow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "home"))


def put(tmp_path: Path, data: bytes, path: str = "out/model é 1.onnx") -> str:
    run_id = gateway.run_ensure("storage", tags={"slipway.key": uuid.uuid4().hex}, run_name="r")
    file = tmp_path / "file"
    file.write_bytes(data)
    return storage.put_file(file, run_id=run_id, artifact_path=path)


def no_leftovers() -> bool:
    return not list((paths.cache() / "incoming").glob("*"))


def test_file_comes_back_under_its_digest_when_stored(tmp_path: Path) -> None:
    uri = put(tmp_path, b"x" * 3_000_000)
    assert uri.startswith("mlflow-artifacts:/")
    path = storage.fetch_file(uri, sha256=None, size_limit=10**7)
    assert path.name == sha(b"x" * 3_000_000) and path.stat().st_size == 3_000_000
    assert storage.fetch_file(uri, sha256=path.name, size_limit=10**7) == path
    assert no_leftovers()


def test_fetch_fails_closed_when_the_digest_is_wrong(tmp_path: Path) -> None:
    uri = put(tmp_path, b"changed")
    with pytest.raises(EngineError, match="changed or damaged") as caught:
        storage.fetch_file(uri, sha256=sha(b"original"), size_limit=100)
    assert caught.value.code == "digest"
    assert storage.open_cached(sha(b"original")) is None and storage.open_cached(sha(b"changed")) is None
    assert len(list((paths.cache() / "quarantine").iterdir())) == 1 and no_leftovers()


def test_fetch_is_refused_when_the_file_is_larger_than_allowed(tmp_path: Path) -> None:
    uri = put(tmp_path, b"x" * 1000)
    with pytest.raises(EngineError) as caught:
        storage.fetch_file(uri, sha256=None, size_limit=999)
    assert caught.value.code == "too_large" and no_leftovers()


def test_damaged_cache_is_put_aside_and_fetched_again_when_opened(tmp_path: Path) -> None:
    uri = put(tmp_path, b"good")
    path = storage.fetch_file(uri, sha256=sha(b"good"), size_limit=100)
    path.chmod(0o644)
    path.write_bytes(b"evil")
    storage._verified.clear()
    assert storage.open_cached(sha(b"good")) is None
    assert storage.fetch_file(uri, sha256=sha(b"good"), size_limit=100).read_bytes() == b"good"


def test_cache_add_refuses_when_the_digest_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"f")
    assert storage.cache_add(tmp_path / "f", sha(b"f")).read_bytes() == b"f"
    with pytest.raises(EngineError):
        storage.cache_add(tmp_path / "f", sha(b"g"))
    assert storage.open_cached(sha(b"g")) is None


def test_missing_file_is_not_found_when_fetched(tmp_path: Path) -> None:
    uri = put(tmp_path, b"x")
    with pytest.raises(EngineError) as caught:
        storage.fetch_file(uri + "-not", sha256=None, size_limit=10)
    assert caught.value.code == "not_found"


def test_folder_comes_back_with_its_manifest_when_stored(tmp_path: Path) -> None:
    run_id = gateway.run_ensure("storage", tags={"slipway.key": uuid.uuid4().hex}, run_name="r")
    (tmp_path / "f").write_bytes(b"f")
    for path in ("model/MLmodel", "model/data/a.bin", "model/data/b.bin"):
        storage.put_file(tmp_path / "f", run_id=run_id, artifact_path=path)
    manifest = storage.fetch_folder(f"runs:/{run_id}/model", tmp_path / "out")
    assert manifest == [
        {"path": path, "size": 1, "sha256": sha(b"f")} for path in ("MLmodel", "data/a.bin", "data/b.bin")
    ]
    assert (tmp_path / "out/data/b.bin").read_bytes() == b"f"
    lines = "".join(sorted(f"{sha(b'f')}  {row['path']}\n" for row in manifest))
    assert storage.manifest_digest(list(reversed(manifest))) == sha(lines.encode())
    for limits in (
        storage.FolderLimits(files=2),
        storage.FolderLimits(depth=1),
        storage.FolderLimits(total_bytes=2),
    ):
        with pytest.raises(EngineError) as caught:
            storage.fetch_folder(f"runs:/{run_id}/model", tmp_path / "small", limits=limits)
        assert caught.value.code == "too_large"


def test_half_a_folder_is_removed_when_mlflow_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(tmp_path, b"a", "model/a").removesuffix("/a")
    assert len(storage.fetch_folder(folder, tmp_path / "whole")) == 1

    def broken(*args: Any) -> None:
        raise Unavailable("MLflow does not answer.")

    monkeypatch.setattr(storage, "_download", broken)
    with pytest.raises(Unavailable):
        storage.fetch_folder(folder, tmp_path / "half")
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize(
    "names",
    [
        ["../evil"], ["/etc/passwd"], [".."], [""], ["a\\b"], ["a\nb"], ["a/../../b"], ["Model", "model"],
        ["x" * 300],
    ],
)  # fmt: skip
def test_folder_is_refused_whole_when_a_name_is_hostile(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listing(*args: Any, **more: Any) -> dict[str, Any]:
        return {"files": [{"path": name, "is_dir": False, "file_size": 1} for name in ["fine", *names]]}

    monkeypatch.setattr(client, "call", listing)
    with pytest.raises(EngineError) as caught:
        storage.fetch_folder("mlflow-artifacts:/0/x/artifacts/model", tmp_path / "out")
    assert caught.value.code == "name"
    assert not (tmp_path / "out").exists()


def test_disk_full_is_said_when_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = put(tmp_path, b"x" * 10)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "_settle", full)
    with pytest.raises(Unavailable, match="disk"):
        storage.fetch_file(uri, sha256=None, size_limit=100)
    assert no_leftovers()
