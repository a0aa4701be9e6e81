"""Queue `retrain`: runs a model's recorded training entry point again and registers what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.utils.translation import gettext_lazy as _
from pydantic import BaseModel

from engine.errors import EngineError
from engine.sandbox import Limits, SandboxResult
from registry import storage
from registry.intake import version_from_mlflow
from registry.mlflow import gateway
from registry.mlflow.locations import location_of
from registry.models import Model, Origin, Version
from slipway.jobs.context import JobContext
from slipway.jobs.kinds import Done, job_kind
from workers.common import sandboxed, scratch_folder
from workers.runs import numbers

TRAIN_LIMITS = Limits(seconds=3600, memory_mb=8192, cpu_seconds=7200)
PROJECT_FOLDER = "project"


class RetrainParams(BaseModel):
    model_id: int
    parameters: dict[str, Any] = {}


@job_kind("retrain", queue="retrain", params=RetrainParams, label=_("Retrain"))
def retrain(job: JobContext, params: RetrainParams) -> Done:
    """Trains in the sandbox against a throw-away store, then copies the run into MLflow and registers it."""
    model = Model.objects.select_related("project").get(pk=params.model_id)
    with scratch_folder(job) as scratch:
        with job.step("fetch"):
            origin = _trained(model)
            project = scratch / "project"
            storage.fetch_folder(f"runs:/{origin.mlflow_run_id}/{PROJECT_FOLDER}", project)
            job.progress(0.1, f"Training entry point of version {origin.number}.")
        with job.step("train"):
            # What a killed attempt has stored whole is registered as it is; training may take hours.
            trained = None if job.remembered("artifacts") is not None else _train(job, params, project, scratch)
            job.progress(0.7, "Trained." if trained else "Trained and stored by an earlier attempt.")
        with job.step("store"):
            run_id = job.once("run", lambda: _run(job, model, origin))
            job.note_run(run_id)
            job.once("artifacts", lambda: _store(run_id, trained))
        with job.step("register"):
            source = location_of(f"runs:/{run_id}/model")
            number = job.once("version", lambda: _register(model, run_id, source, job.id))

    def commit() -> dict[str, Any]:
        version = version_from_mlflow(
            project=model.project,
            mlflow_name=_mlflow_name(model),
            mlflow_version=number,
            source=source,
            run_id=run_id,
            origin=Origin.RETRAINING,
        )
        return {"version": version.pk, "number": version.number}

    return Done({"run": run_id}, commit=commit)


def _train(job: JobContext, params: RetrainParams, project: Path, scratch: Path) -> SandboxResult:
    return sandboxed(
        job,
        "engine.sandbox.training:train",
        params={"entry_point": "main", "parameters": params.parameters},
        inputs={"project": project},
        scratch=scratch,
        limits=TRAIN_LIMITS,
    )


def _trained(model: Model) -> Version:
    """The newest version whose run recorded how it was trained."""
    rows = Version.objects.filter(model=model, state="ready").exclude(mlflow_run_id="")
    for version in rows.order_by("-number")[:20]:
        listed = gateway.artifacts_list(version.mlflow_run_id, PROJECT_FOLDER)
        if any(entry.path == f"{PROJECT_FOLDER}/MLproject" for entry in listed):
            return version
    raise EngineError(
        "No version of this model recorded its training entry point. Log an MLflow project "
        "(a folder with an MLproject file) under “project” in the training run.",
        code="no_entry_point",
    )


def _mlflow_name(model: Model) -> str:
    return model.mlflow_name or model.name


def _run(job: JobContext, model: Model, origin: Version) -> str:
    """The training run in MLflow."""
    return gateway.run_ensure(
        f"slipway/{model.project.slug}",
        tags={
            gateway.KEY: gateway.job_key(job.id),
            "slipway.job": str(job.id),
            "slipway.retrained_from": str(origin.pk),
        },
        run_name=f"{model.name} retrained",
    )


def _store(run_id: str, trained: SandboxResult | None) -> int:
    """What the sandboxed run logged, and then its files: numbers and bytes of one and the same training.

    A parameter that a killed attempt logged stays as it is, because MLflow refuses to change one.
    """
    assert trained is not None
    run, known = trained.value["run"], gateway.run_read(run_id).params
    gateway.run_log(
        run_id,
        params={key: str(value) for key, value in run["params"].items() if key not in known},
        metrics=numbers(run["metrics"]),
        tags={},
    )
    return _copy(run_id, trained.files)


def _copy(run_id: str, files: Path) -> int:
    """Uploads the run's artifacts and the model; the same names again are the same files."""
    count = 0
    for folder, prefix in ((files / "artifacts", ""), (files / "model", "model/")):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = prefix + path.relative_to(folder).as_posix()
                storage.put_file(path, run_id=run_id, artifact_path=name)
                count += 1
    return count


def _register(model: Model, run_id: str, source: str, job_id: int) -> int:
    gateway.run_finish(run_id)
    return gateway.version_register(
        _mlflow_name(model), run_id=run_id, source=source, tags={gateway.KEY: gateway.job_key(job_id)}
    )
