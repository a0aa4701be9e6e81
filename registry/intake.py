"""How versions come in: from MLflow, by upload, by copying stored bytes. Nothing is half-registered."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import structlog
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction

from registry import storage
from registry.copying import copy_at_once
from registry.mlflow import gateway, reconcile
from registry.mlflow.facts import MlflowVersion
from registry.models import Artifact, Format, Model, Origin, Task, Verdict, Version, VersionState
from registry.services import export_request, model_create
from registry.signing import attest
from slipway import events
from slipway.accounts import policy
from slipway.accounts.models import Project, User
from slipway.api.problems import Conflict, Problem
from slipway.audit.services import record
from slipway.jobs.models import Job
from slipway.jobs.services import submit

_KEPT = ("opset", "ir_version", "nodes", "parameters", "producer", "version", "model")  # facts of an uploaded file
log = structlog.get_logger(__name__)


def _next_number(model: Model) -> int:
    """The next version number, allotted by the database so that two registrations cannot share one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE registry_model SET last_number = last_number + 1 WHERE id = %s RETURNING last_number",
            [model.pk],
        )
        return int(cursor.fetchone()[0])


def _add_version(*, actor: User | None, model: Model, **values: Any) -> Version:
    if model.archived_at is not None:
        raise Conflict("This model is archived; restore it before you add versions.")
    version = Version.objects.create(model=model, number=_next_number(model), created_by=actor, **values)
    _note(actor, model, version)
    return version


def _note(actor: User | None, model: Model, version: Version) -> None:
    record(
        actor=actor,
        action="version.register",
        target=version,
        project_id=model.project_id,
        model=model.name,
        number=version.number,
        origin=version.origin,
    )
    events.ring(model.project_id, "model", model.pk)


@transaction.atomic
def version_copy(*, actor: User | None, model: Model, sha256: str) -> Version:
    """A new version of bytes that the project already holds (and that were found fit)."""
    policy.require(actor, policy.WRITE, model.project_id)
    version = copy_at_once(model=model, sha256=sha256, actor_id=actor.pk if actor else None)
    _note(actor, model, version)
    return version


@transaction.atomic
def version_from_upload(
    *,
    actor: User,
    project: Project,
    model_name: str,
    task: str,
    sha256: str,
    size: int,
    file_name: str,
    uri: str,
    run_id: str,
    facts: Mapping[str, Any],
    framework: str = "onnx",
) -> Version:
    """A version of an uploaded file that the sandbox has found fit (`facts` of `check_onnx` or `check_pmml`).

    A PMML file is the version's source, alone in a folder as model.pmml; its export to ONNX is submitted.
    """
    policy.require(actor, policy.WRITE, project)
    model = _model_named(actor, project, model_name, task or Task.OTHER)
    version = _add_version(
        actor=actor,
        model=model,
        origin=Origin.UPLOAD,
        state=VersionState.READY,
        framework=framework,
        signature=facts["signature"],
        params={key: facts[key] for key in _KEPT if key in facts},
        mlflow_run_id=run_id,
    )
    format, manifest = Format.ONNX, []
    if framework != "onnx":
        folder, _, name = uri.rpartition("/")
        format, uri, file_name = Format.SOURCE, folder, "model"
        manifest = [{"path": name, "size": size, "sha256": sha256}]
        sha256 = storage.manifest_digest(manifest)
    Artifact.objects.create(
        version=version,
        format=format,
        sha256=sha256,
        size=size,
        file_name=file_name,
        uri=uri,
        manifest=manifest,
        verdict=Verdict.CLEAN,
        signature=facts["signature"],
        attestation=attest(version, format=format, sha256=sha256, size=size, file_name=file_name),
        mlflow_run_id=run_id,
    )
    if format == Format.SOURCE:
        export_request(actor=actor, version=version, exporters=["onnx"])
    return version


def _model_named(actor: User, project: Project, name: str, task: str) -> Model:
    """The model of this name, made when it is new; two first uploads at once are two versions of one model."""
    named = Model.objects.filter(project=project, name=name)
    if (found := named.first()) is not None:
        return found
    try:
        with transaction.atomic():
            return model_create(actor=actor, project=project, name=name, task=task)
    except (IntegrityError, ValidationError):
        if (found := named.first()) is None:
            raise
        return found


@transaction.atomic
def version_from_mlflow(
    *,
    project: Project,
    mlflow_name: str,
    mlflow_version: int,
    source: str,
    run_id: str,
    description: str = "",
    task: str = "",
    origin: str = Origin.MLFLOW,
) -> Version:
    """Takes a version registered in MLflow in, and submits the job that fetches and scans it.

    Safe to repeat: the pair (model, MLflow version) is unique, and the job's key is made of it.
    """
    model = Model.objects.select_for_update(no_key=True).filter(mlflow_name=mlflow_name).first()
    if model is None:
        model = _model_for(project=project, mlflow_name=mlflow_name, task=task)
    if origin == Origin.RETRAINING and model.project_id != project.pk:
        # Names are one space in MLflow: a model of ours that has none yet may be called like another project's.
        raise Conflict(f"The name “{mlflow_name}” belongs to another project's model in MLflow.")
    known = Version.objects.filter(model=model, mlflow_version=mlflow_version).first()
    if known is not None:
        return known
    version = _add_version(
        actor=None,
        model=model,
        origin=origin,
        mlflow_version=mlflow_version,
        mlflow_run_id=run_id,
        mlflow_source=source,
        card=description,
    )
    version.job = submit(
        "ingest",
        project=model.project,
        params={"version_id": version.pk},
        subject=str(version),
        key=f"ingest:{version.pk}",
    )
    version.save(update_fields=["job"])
    return version


def _model_for(*, project: Project, mlflow_name: str, task: str) -> Model:
    """The model an MLflow name belongs to: one of the same name that has none yet, or a new one."""
    plain = (char if char.isascii() and (char.isalnum() or char in " ._-") else "-" for char in mlflow_name)
    name = "".join(plain)[:128]
    name = name if name[:1].isalnum() else f"m{name}"[:128]
    model = Model.objects.filter(project=project, name=name).first()
    if model is not None and model.mlflow_name is None:
        model.mlflow_name = mlflow_name
        model.save(update_fields=["mlflow_name"])
        return model
    if model is not None:
        # Another MLflow name reads the same: both `a/b` and `a:b` are `a-b` here.
        name = f"{name[:115]}-{hashlib.sha256(mlflow_name.encode()).hexdigest()[:12]}"
    known_task = task if task in Task.values else Task.OTHER
    return model_create(actor=None, project=project, name=name, task=known_task, mlflow_name=mlflow_name)


def versions_reconcile() -> int:
    """Takes in what was registered in MLflow since the last look; returns how many versions came.

    A version that cannot be taken in is skipped with a line in the log, so that it does not hold up others.
    """
    taken = 0
    for found in reconcile.versions_new():
        try:
            retraining = _retraining_of(found)
            version_from_mlflow(
                project=retraining.project if retraining else _project_for(found.tags),
                origin=Origin.RETRAINING if retraining else Origin.MLFLOW,
                mlflow_name=found.name,
                mlflow_version=found.version,
                source=found.source,
                run_id=found.run_id or "",
                description=found.description or "",
                task=found.tags.get("slipway.task", ""),
            )
            taken += 1
        except (Problem, ValidationError) as error:
            log.warning("mlflow_version_skipped", name=found.name, version=found.version, error=str(error))
    return taken


def _retraining_of(found: MlflowVersion) -> Job | None:
    """The job that registered it, seen here before that job's own end; its run shows that the tag is true."""
    number = gateway.job_of_key(found.tags.get(gateway.KEY, ""))
    if number is None or not found.run_id:
        return None
    return Job.objects.select_related("project").filter(
        pk=number, kind="retrain", mlflow_run_id=found.run_id
    ).first()  # fmt: skip


def _project_for(tags: Mapping[str, str]) -> Project:
    """The project that the tag `slipway.project` names, else the first one."""
    slug = tags.get("slipway.project")
    project = Project.objects.filter(slug=slug).first() if slug else Project.objects.order_by("id").first()
    if project is None:
        raise Problem(f"There is no project “{slug}”.", field="slipway.project")
    return project
