"""A version that asks for other packages than anybody has, from MLflow to its export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from django.db.models.functions import Now

from registry import environments, packages
from registry.models import Artifact, Environment, Resolution, Version
from slipway.jobs.kernel import execute
from slipway.jobs.kinds import kind_of
from slipway.jobs.models import Job
from slipway.jobs.services import submit

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("use_mlflow")]


@pytest.fixture
def by_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of pip's time."""
    import workers.environments as room

    monkeypatch.setattr(room, "environment", dataclasses.replace(room.environment, installer="uv"))


def ran(job: Job) -> Job:
    Job.objects.filter(pk=job.pk).update(available_at=Now())
    execute(kind_of(job.kind), job.pk)
    job.refresh_from_db()
    return job


@pytest.fixture
def taken_in(model: Any, mlflow_url: str, older_model: Path) -> Version:
    """The older model, logged to MLflow and ingested."""
    import mlflow

    import workers.export  # noqa: F401 - declares the kinds

    client = mlflow.MlflowClient(tracking_uri=mlflow_url)
    experiment = client.create_experiment(f"older-{model.pk}")
    run = client.create_run(experiment).info
    client.log_artifacts(run.run_id, str(older_model), "model")
    model.last_number = 1
    model.save()
    version = Version.objects.create(
        model=model, number=1, state="pending", origin="mlflow", mlflow_run_id=run.run_id,
        mlflow_source=f"runs:/{run.run_id}/model",
    )  # fmt: skip
    job = ran(submit("ingest", project=model.project, params={"version_id": version.pk}))
    assert job.state == "succeeded", job.reason
    version.refresh_from_db()
    return version


def test_older_version_is_exported_with_its_own_packages_when_nobody_has_them(
    taken_in: Version, people: Any, shared_environments: Path, by_uv: None, as_user: Any
) -> None:
    version = taken_in
    assert version.framework == "sklearn" and version.params["requirements"] == ["mlflow==3.1.0", "scikit-learn==1.7.2"]
    assert version.params["python"] == "3.11.7"
    job = Job.objects.filter(kind="export", params__exporter="onnx").first() or submit(
        "export", project=version.model.project, params={"version_id": version.pk, "exporter": "onnx"}
    )
    assert ran(job).state == "queued" and "Waits for the environment base" in job.reason
    prepare = ran(Job.objects.get(kind="prepare"))
    assert prepare.state == "succeeded" and prepare.result["origin"] == "own", prepare.reason
    assert ran(job).state == "succeeded", job.reason
    artifact = Artifact.objects.get(version=version, format="onnx")
    assert artifact.recipe["packages"] == "own" and artifact.parity["passed"]
    assert artifact.recipe["lock"] == packages.plan_for(version, None).digest
    row = Environment.objects.get()
    assert row.origin == "own" and row.state == "ready" and "scikit-learn 1.7.2" in row.packages and row.uses == 2
    assert row.digest == packages.plan_for(version, None).digest
    lock = environments.file_of(version, "requirements.txt")
    assert "scikit-learn==1.7.2" in lock and "--hash=sha256:" in lock and lock == Resolution.objects.get().lock
    listed = as_user("viewer").get("/api/v1/environments").json()["results"][0]
    assert listed["origin"] == "own"
    formats = {
        each["exporter"]: each for each in as_user("viewer").get(f"/api/v1/versions/{version.pk}/formats").json()
    }
    assert (formats["onnx"]["origin"], formats["onnx"]["prepared"]) == ("own", True)


def test_job_fails_and_names_the_requirement_when_no_index_has_it(
    taken_in: Version, people: Any, shared_environments: Path, by_uv: None
) -> None:
    job = environments.environment_request(
        actor=people["developer"], version=taken_in, name="base", requirements=["scikit-learn==99.1"]
    )
    assert ran(job).state == "failed" and "scikit-learn==99.1" in job.reason
    taken_in.refresh_from_db()
    ways = {way.exporter: way for way in environments.ways_of(taken_in)}
    assert "scikit-learn==99.1" in ways["onnx"].reason
