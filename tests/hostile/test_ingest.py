"""Hostile models registered in MLflow: the job that takes them in rejects each, and says why."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest

from engine.errors import EngineError
from engine.sandbox import run
from registry.intake import version_from_mlflow
from registry.mlflow import client
from registry.models import Artifact, Version
from slipway import paths
from slipway.accounts.models import Project
from slipway.jobs.kernel import execute
from slipway.jobs.kinds import kind_of
from slipway.jobs.models import Job, JobLog, State
from tests.hostile.conftest import metered, quiet, stored
from tests.hostile.table import PICKLE, Case, by, described
from workers.export import SCAN_LIMITS

# Really committed: the job's heartbeat has a connection of its own.
in_database = pytest.mark.django_db(transaction=True)


def registered(project: Project, name: str, files: dict[str, bytes]) -> Version:
    """A version in MLflow's registry whose folder holds these files."""
    for file, content in files.items():
        answer = client.http().put(client.artifact_url(f"hostile/{name}/{quote(file)}"), content=content, timeout=60)
        assert answer.status_code == 200, answer.text
    return version_from_mlflow(
        project=project,
        mlflow_name=f"m{name}"[:100],
        mlflow_version=1,
        source=f"mlflow-artifacts:/hostile/{name}",
        run_id="",
    )


def ingested(version: Version) -> tuple[Version, Job]:
    job = Job.objects.get(pk=version.job_id)
    execute(kind_of("ingest"), job.pk)
    job.refresh_from_db()
    version.refresh_from_db()
    return version, job


def safe(text: str) -> str:
    return "".join(ch if ch.isalnum() else "-" for ch in text)


@pytest.mark.parametrize("case", by("ingest"), ids=str)
@in_database
@pytest.mark.usefixtures("use_mlflow")
def test_version_is_rejected_with_its_cause_when_its_files_are_hostile(case: Case, project: Project) -> None:
    version = registered(project, safe(str(case)), case.make())
    with metered(os.getpid(), case):
        version, job = ingested(version)
    assert (job.state, version.state) == (State.SUCCEEDED, "rejected"), (job.reason, version.reason)
    assert case.word.lower() in version.reason.lower(), version.reason
    [artifact] = version.artifacts.all()
    assert artifact.verdict == "rejected"
    assert any(each["level"] == "rejected" and case.word in each["message"] for each in artifact.findings)
    said = "\n".join(JobLog.objects.filter(job=job).values_list("text", flat=True))
    assert case.word.lower() in said.lower()
    quiet(version.reason + str(artifact.findings), paths.home())  # the log holds what a developer of exporters needs
    assert stored(paths.home()) == set()
    assert not Job.objects.exclude(kind="ingest").exists()  # nothing is exported of it


@pytest.mark.parametrize("case", by("folder"), ids=str)
def test_folder_is_rejected_with_its_cause_when_it_holds_what_is_no_file(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "MLmodel").write_bytes(described("model.onnx"))
    case.make(folder)
    with metered(os.getpid(), case):
        try:
            found = run(
                "engine.scan.tasks:scan_source",
                params={}, inputs={"source": folder}, scratch=tmp_path / "scratch", limits=SCAN_LIMITS,
            ).value  # fmt: skip
            said = [each["message"] for each in found["findings"] if each["level"] == "rejected"]
        except EngineError as error:
            assert error.field == "file"
            said = [error.message]
    assert any(case.word.lower() in each.lower() for each in said), said
    quiet(" ".join(said), tmp_path)


@in_database
@pytest.mark.usefixtures("use_mlflow")
def test_version_is_rejected_before_a_file_is_fetched_when_a_name_is_not_safe(
    project: Project, mlflow_url: str
) -> None:
    version = registered(project, "case", {"MLmodel": described("model.pkl"), "model.pkl": PICKLE, "Model.PKL": PICKLE})
    version, job = ingested(version)
    assert (job.state, version.state) == (State.SUCCEEDED, "rejected"), job.reason
    assert "differ by case" in version.reason
    assert not Artifact.objects.filter(version=version).exists() and stored(paths.home()) == set()


@in_database
@pytest.mark.usefixtures("use_mlflow")
def test_good_version_is_ready_when_hostile_ones_came_before(project: Project) -> None:
    version = registered(project, "good", {"MLmodel": described("model.pkl"), "model.pkl": PICKLE})
    version, job = ingested(version)
    assert (job.state, version.state) == (State.SUCCEEDED, "ready"), (job.reason, version.reason)
