"""Transitions, what the database itself refuses, results of jobs, requests for them."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from engine.errors import EngineError
from registry import results, services
from registry.models import VERSION_TRANSITIONS, Alias, Artifact, Dataset, Measurement, Model, Version, VersionState
from slipway.api.problems import Conflict, Problem
from slipway.audit.models import Entry
from slipway.jobs.models import Job
from slipway.jobs.services import submit

DIGEST = "a" * 64


# Transitions and constraints


@pytest.mark.django_db
@pytest.mark.parametrize("old", VersionState.values)
@pytest.mark.parametrize("new", VersionState.values)
def test_version_moves_only_along_the_table_when_asked(old: str, new: str, new_version) -> None:
    version = new_version(state=old)
    allowed = new in VERSION_TRANSITIONS[old]
    assert services.version_move(version=version, state=new, reason="why") is allowed
    version.refresh_from_db()
    assert (version.state, version.reason) == ((new, "why") if allowed else (old, ""))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("artifact", {"sha256": "A" * 64}), ("artifact", {"sha256": "a" * 63}), ("artifact", {"sha256": ""}),
        ("artifact", {"size": -1}), ("artifact", {"format": "exe"}), ("artifact", {"verdict": "fine"}),
        ("version", {"state": "new"}), ("version", {"approval": "maybe"}), ("version", {"number": 0}),
        ("model", {"task": "magic"}),
    ],
)  # fmt: skip
def test_database_refuses_when_value_is_not_allowed(table: str, change, new_version) -> None:
    version = new_version()
    rows = {
        "artifact": Artifact.objects.all(),
        "version": Version.objects.filter(pk=version.pk),
        "model": Model.objects.all(),
    }[table]
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.update(**change)


@pytest.mark.django_db
def test_database_refuses_when_a_row_would_be_there_twice(project, model, new_version) -> None:
    one, two = new_version(mlflow_version=7), new_version()
    artifact = one.artifacts.get()
    Alias.objects.create(model=model, name="champion", version=one)
    for attempt in (
        lambda: Version.objects.filter(pk=two.pk).update(number=1),
        lambda: Version.objects.filter(pk=two.pk).update(mlflow_version=7),
        lambda: Alias.objects.create(model=model, name="champion", version=two),
        lambda: Model.objects.create(project=project, name="digits"),
        lambda: Artifact.objects.create(version=one, format="onnx", sha256=artifact.sha256, size=1),
        lambda: Dataset.objects.create(project=project, role="other", sha256=DIGEST, size=1),
        lambda: Dataset.objects.create(project=project, role="training", sha256="x", size=1),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            attempt()


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["", " a", "a\x00b", "a/b", "../x", "a" * 129, "模型", "a\nb", "<b>"])
def test_model_is_refused_when_name_is_bad(name: str, people, project) -> None:
    with pytest.raises(ValidationError):
        services.model_create(actor=people["developer"], project=project, name=name)
    assert not Model.objects.exists() and not Entry.objects.exists()


@pytest.mark.django_db
def test_only_named_fields_change_when_model_is_updated(people, model) -> None:
    for field in ("id", "name", "project", "last_number", "mlflow_name"):
        with pytest.raises(Problem) as refused:
            services.model_update(actor=people["admin"], model=model, **{field: 5})
        assert refused.value.field == field


# Results of jobs


@pytest.mark.django_db
def test_results_are_written_once_when_job_repeats(project, model, new_version) -> None:
    version = new_version()
    artifact = version.artifacts.get()
    job = submit("ingest", project=project, params={"version_id": version.pk})
    measured = {
        "latency_ms": {"p50": 1.0, "p95": 2.0, "p99": 3.0}, "profile": {"cpu": "x"}, "metrics": {"accuracy": 0.9},
    }  # fmt: skip
    for _ in range(3):
        results.artifact_record(
            version=version, format="pmml", sha256=DIGEST, size=1, file_name="m", uri="x", parent=artifact
        )
        data = results.dataset_record(
            version=version, role="evaluation", sha256=DIGEST, size=1, file_name="d.csv", uri="x", rows=5
        )
        row = results.measurement_record(artifact=artifact, dataset=data, job_id=job.pk, run_id="r", measured=measured)
    assert (Artifact.objects.count(), Dataset.objects.count(), Measurement.objects.count()) == (2, 1, 1)
    assert list(version.datasets.all()) == [data] and row.throughput is None


@pytest.mark.django_db
@pytest.mark.parametrize(("verdict", "state", "reason"), [("clean", "ready", ""), ("rejected", "rejected", "why")])
def test_version_moves_when_described(verdict, state, reason, new_version) -> None:
    version = new_version(state="pending")
    for _ in range(2):
        results.version_described(
            version=version, framework="f" * 99, signature={}, metrics={"a": 1.0}, params={}, baseline={},
            verdict=verdict, reason="why",
        )  # fmt: skip
    version.refresh_from_db()
    assert (version.state, version.reason, version.framework) == (state, reason, "f" * 40)


@pytest.mark.django_db
def test_task_of_a_person_stays_when_inferred(project, new_version, model) -> None:
    results.task_infer(version=new_version(), task="tabular-regression")
    model.refresh_from_db()
    assert model.task == "image-classification"
    Model.objects.update(task="other")
    results.task_infer(version=model.versions.get(), task="tabular-regression")
    model.refresh_from_db()
    assert model.task == "tabular-regression"


# Requests


@pytest.mark.django_db
def test_export_and_optimize_are_refused_when_input_is_bad(people, new_version) -> None:
    developer, version = people["developer"], new_version()
    artifact = version.artifacts.get()
    with pytest.raises((EngineError, Problem)):
        services.export_request(actor=developer, version=version, exporters=["onnx", "nonsense"])
    with pytest.raises((EngineError, Problem)):
        services.optimize_request(actor=developer, artifact=artifact, optimizer="nonsense", options={})
    with pytest.raises(Exception, match=r"extra|permitted|unknown"):
        services.optimize_request(
            actor=developer, artifact=artifact, optimizer="dynamic-quantization", options={"zzz": 1}
        )
    with pytest.raises(Conflict):
        services.export_request(actor=developer, version=new_version(state="pending"), exporters=["onnx"])
    Artifact.objects.filter(pk=artifact.pk).update(verdict="rejected")
    artifact.refresh_from_db()
    with pytest.raises(Conflict):
        services.optimize_request(actor=developer, artifact=artifact, optimizer="dynamic-quantization", options={})
    assert not Job.objects.exists()
