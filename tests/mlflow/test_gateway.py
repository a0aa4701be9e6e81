"""Runs, versions and reconciling against a real MLflow."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from engine.errors import EngineError
from registry import storage
from registry.mlflow import gateway, reconcile
from registry.mlflow.facts import MlflowVersion
from registry.models import Model, Origin, Version


@pytest.fixture(autouse=True)
def _real_mlflow(use_mlflow: None) -> None:
    return None


def new_run(**more: str) -> str:
    return gateway.run_ensure("tests", tags={"slipway.key": uuid.uuid4().hex, **more}, run_name="a run")


def registered(name: str, path: Path) -> int:
    """A version of one file, registered in MLflow."""
    run_id = new_run()
    path.write_bytes(b"model")
    storage.put_file(path, run_id=run_id, artifact_path="model/model.onnx")
    source = gateway.run_read(run_id).artifact_uri + "/model"
    return gateway.version_register(name, run_id=run_id, source=source, tags={"slipway.key": uuid.uuid4().hex})


def test_run_ensure_finds_the_former_run_when_repeated() -> None:
    tags = {"slipway.key": "job:7:it's", "slipway.job": "7"}
    first = gateway.run_ensure("tests", tags=tags, run_name="export")
    assert gateway.run_ensure("tests", tags=tags, run_name="export") == first
    assert gateway.run_read(first).tags["slipway.job"] == "7"


def test_second_run_is_gone_when_a_dying_attempt_made_it_late(monkeypatch: pytest.MonkeyPatch) -> None:
    key = uuid.uuid4().hex
    first = gateway.run_ensure("tests", tags={"slipway.key": key}, run_name="export")
    looked, asked = [], gateway._runs_of
    # Frozen between its looking and its making: it saw none.
    with monkeypatch.context() as frozen:
        frozen.setattr(gateway, "_runs_of", lambda *named: asked(*named) if looked else looked.append(1) or [])
        assert gateway.run_ensure("tests", tags={"slipway.key": key}, run_name="export") == first
    body = {
        "experiment_id": gateway.experiment_ensure("tests"), "run_name": "late", "start_time": gateway._now(),
        "tags": [{"key": "slipway.key", "value": key}],
    }  # fmt: skip
    late = gateway.call("POST", "runs/create", doing="creating a run", body=body)["run"]["info"]["run_id"]
    gateway.run_finish(first)
    assert asked(body["experiment_id"], key) == [first] and late != first


def test_run_ensure_brings_the_experiment_back_when_it_was_deleted() -> None:
    run_id = gateway.run_ensure("gone", tags={"slipway.key": "gone:1"}, run_name="r")
    experiment_id = gateway.run_read(run_id).experiment_id
    gateway.call("POST", "experiments/delete", doing="deleting", body={"experiment_id": experiment_id})
    assert gateway.run_ensure("gone", tags={"slipway.key": "gone:2"}, run_name="r") != run_id


def test_run_read_tells_what_was_logged_when_logged_twice() -> None:
    run_id = new_run(**{"mlflow.project.entryPoint": "train", "mlflow.source.type": "PROJECT"})
    params = {f"p{index}": index for index in range(150)}
    for _ in range(2):
        gateway.run_log(run_id, params=params, metrics={"a": 0.5, "n": math.nan}, tags={"t": "é"})
    gateway.run_finish(run_id)
    facts = gateway.run_read(run_id)
    assert facts.params["p149"] == "149" and len(facts.params) == 150
    assert facts.metrics["a"] == 0.5 and math.isnan(facts.metrics["n"])
    assert (facts.status, facts.tags["t"], facts.name) == ("FINISHED", "é", "a run")
    assert facts.entry_point.is_project and facts.entry_point.entry_point == "train"
    assert run_id in gateway.run_link(run_id)


def test_param_is_refused_when_it_changes() -> None:
    run_id = new_run()
    gateway.run_log(run_id, params={"p": 1})
    with pytest.raises(EngineError, match="refused logging"):
        gateway.run_log(run_id, params={"p": 2})


def test_unknown_run_is_not_found_when_read() -> None:
    with pytest.raises(EngineError) as caught:
        gateway.run_read("f" * 32)
    assert caught.value.code == "not_found"


def test_version_register_finds_the_former_version_when_repeated(tmp_path: Path) -> None:
    run_id = new_run()
    (tmp_path / "m").write_bytes(b"m")
    uri = storage.put_file(tmp_path / "m", run_id=run_id, artifact_path="model/m")
    source = uri.removesuffix("/m")
    tags = {"slipway.key": "job:8"}
    first = gateway.version_register("again", run_id=run_id, source=source, tags=tags)
    assert gateway.version_register("again", run_id=run_id, source=source, tags=tags) == first == 1
    gateway.alias_set("again", "champion", first)
    assert gateway.registered_model_tags("again") == {}
    assert [row.path for row in gateway.artifacts_list(run_id, "model")] == ["model/m"]


def version(source: str) -> MlflowVersion:
    return MlflowVersion("m", 1, source, "", "READY", {}, (), 0, 0, "")


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc", "/etc", "http://169.254.169.254/latest", "s3://bucket/x", "mlflow-artifacts://host/x",
        "mlflow-artifacts:/a/../../b", "mlflow-artifacts:/a/%2e%2e/b", "mlflow-artifacts:/", "dbfs:/x", "",
        "mlflow-artifacts:/a?x=1", "models:/",
    ],
)  # fmt: skip
def test_source_is_refused_when_it_is_not_in_the_store(source: str) -> None:
    with pytest.raises(EngineError) as caught:
        gateway.source_location(version(source))
    assert caught.value.code == "source"


def test_source_is_located_when_written_in_any_way(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"m")
    run_id = new_run()
    folder = storage.put_file(tmp_path / "m", run_id=run_id, artifact_path="model/m").removesuffix("/m")
    number = gateway.version_register("located", run_id=run_id, source=folder, tags={"slipway.key": "l"})
    assert gateway.source_location(version(folder)) == folder
    assert gateway.source_location(version(f"runs:/{run_id}/model")) == folder
    assert gateway.source_location(version(f"models:/located/{number}")) == folder
    experiment_id = gateway.run_read(run_id).experiment_id
    made = gateway.call(
        "POST",
        "logged-models",
        doing="logging",
        body={"experiment_id": experiment_id, "name": "beside", "source_run_id": run_id},
    )["model"]["info"]
    expected = f"mlflow-artifacts:/{experiment_id}/models/{made['model_id']}/artifacts"
    assert gateway.source_location(version(f"models:/{made['model_id']}")) == expected
    assert gateway.source_location(version(f"runs:/{run_id}/beside")) == expected


@pytest.fixture
def fresh_reconcile() -> Iterator[None]:
    reconcile._last_full.clear()
    yield
    reconcile._last_full.clear()


def take_in(row: MlflowVersion, project: object) -> None:
    model, _ = Model.objects.get_or_create(mlflow_name=row.name, defaults={"project": project, "name": row.name})
    Version.objects.create(model=model, number=row.version, mlflow_version=row.version, origin=Origin.MLFLOW)


def test_versions_new_returns_what_is_missing_when_some_are_known(
    project: object, fresh_reconcile: None, tmp_path: Path
) -> None:
    for name in ("rec-b", "rec-a", "rec-b"):
        registered(name, tmp_path / "f")
    found = [row for row in reconcile.versions_new() if row.name.startswith("rec-")]
    assert [(row.name, row.version) for row in found] == [("rec-a", 1), ("rec-b", 1), ("rec-b", 2)]
    take_in(found[2], project)
    again = [row for row in reconcile.versions_new() if row.name.startswith("rec-")]
    assert [(row.name, row.version) for row in again] == [("rec-a", 1), ("rec-b", 1)]


def page(count: int, created: int, *, name: str = "many", start: int = 1) -> list[MlflowVersion]:
    """`count` versions, newest first."""
    rows = range(start + count - 1, start - 1, -1)
    return [MlflowVersion(name, n, "", "", "READY", {}, (), created + n, 0, "") for n in rows]


def test_versions_new_reads_one_page_when_10000_are_known(
    project: object, fresh_reconcile: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model.objects.create(project=project, name="many", mlflow_name="many")
    Version.objects.bulk_create(
        Version(model=model, number=n, mlflow_version=n, origin=Origin.MLFLOW) for n in range(1, 10_001)
    )
    everything = page(10_000, 0)
    step = reconcile.OVERLAP_MS // 50  # a page spans more than the overlap
    everything = [MlflowVersion(**{**row.__dict__, "created": row.version * step}) for row in everything]
    read: list[int] = []

    def pages(*, size: int = 100) -> Iterator[list[MlflowVersion]]:
        for start in range(0, len(everything), size):
            read.append(start)
            yield everything[start : start + size]

    monkeypatch.setattr(gateway, "version_pages", pages)
    assert reconcile.versions_new(full=True) == []
    read.clear()
    with CaptureQueriesContext(connection) as queries:
        assert reconcile.versions_new() == []
    assert (len(read), len(queries)) == (1, 1)
    Version.objects.filter(mlflow_version__in=[9_000, 9_950]).delete()
    assert [row.version for row in reconcile.versions_new()] == [9_950]
    assert [row.version for row in reconcile.versions_new(full=True)] == [9_000, 9_950]


def test_versions_new_leaves_out_prompts_and_unfinished_when_listed(
    project: object, fresh_reconcile: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = page(3, 0)
    rows[0] = MlflowVersion(**{**rows[0].__dict__, "status": "PENDING_REGISTRATION"})
    rows[1] = MlflowVersion(**{**rows[1].__dict__, "tags": {"mlflow.prompt.is_prompt": "true"}})
    monkeypatch.setattr(gateway, "version_pages", lambda size=100: iter([rows]))
    assert [row.version for row in reconcile.versions_new()] == [1]


def test_versions_since_returns_the_newer_ones_when_given_a_time(tmp_path: Path) -> None:
    registered("since", tmp_path / "f")
    first = next(row for row in gateway.versions_since(0) if row.name == "since")
    registered("since", tmp_path / "f")
    found = [row.version for row in gateway.versions_since(first.created + 1) if row.name == "since"]
    assert found == [2]
