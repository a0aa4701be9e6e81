"""Writes to models, aliases and approvals. How versions come in is in `intake`, what jobs add in `results`."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from engine.export.base import exporter
from engine.optimize.base import optimizer as optimizer_named
from engine.plugins import options_of
from registry.models import (
    VERSION_TRANSITIONS,
    Alias,
    Approval,
    Artifact,
    Format,
    Model,
    Task,
    Verdict,
    Version,
    VersionState,
    alias_validator,
)
from slipway import events
from slipway.accounts import policy
from slipway.accounts.models import Project, User
from slipway.api.problems import Conflict, Problem
from slipway.audit.services import record
from slipway.jobs.models import Job
from slipway.jobs.services import submit

CHAMPION, CHALLENGER = "champion", "challenger"
_CHANGEABLE = {"task", "description", "tags", "archived"}


@transaction.atomic
def model_create(
    *,
    actor: User | None,
    project: Project,
    name: str,
    task: str = Task.OTHER,
    description: str = "",
    mlflow_name: str | None = None,
    tags: list[str] | None = None,
) -> Model:
    """Makes a model without versions."""
    policy.require(actor, policy.WRITE, project)
    model = Model(
        project=project, name=name, task=task, description=description, mlflow_name=mlflow_name, tags=tags or []
    )
    model.full_clean()
    model.save()
    record(actor=actor, action="model.create", target=model, project_id=project.pk, name=name)
    events.ring(project.pk, "model", model.pk)
    return model


@transaction.atomic
def model_update(*, actor: User, model: Model, **changes: Any) -> Model:
    """Changes `task`, `description`, `tags` or `archived`."""
    policy.require(actor, policy.WRITE, model.project_id)
    if unknown := set(changes) - _CHANGEABLE:
        raise Problem(f"{sorted(unknown)[0]} cannot be changed.", field=sorted(unknown)[0])
    row = Model.objects.select_for_update(no_key=True).get(pk=model.pk)
    for field, value in changes.items():
        if field == "archived":
            row.archived_at = timezone.now() if value else None
        else:
            setattr(row, field, value)
    row.revision += 1
    row.full_clean()
    row.save()
    record(actor=actor, action="model.update", target=row, project_id=row.project_id, changes=changes)
    events.ring(row.project_id, "model", row.pk)
    return row


def model_star(*, actor: User, model: Model, starred: bool) -> None:
    """Puts the model on the user's own list, or takes it off."""
    policy.require(actor, policy.VIEW, model.project_id)
    if starred:
        model.stars.add(actor)
    else:
        model.stars.remove(actor)


@transaction.atomic
def alias_set(*, actor: User | None, model: Model, name: str, version: Version) -> Alias:
    """Points an alias at a version, taking it from the one that had it."""
    policy.require(actor, policy.WRITE, model.project_id)
    if version.model_id != model.pk:
        raise Problem("This version belongs to another model.", field="version")
    if version.state != VersionState.READY:
        raise Conflict("Only a version that is ready can carry an alias.")
    alias_validator(name)
    current = Alias.objects.select_for_update().filter(model=model, name=name).first()
    if current is not None and current.protected:
        policy.require(actor, policy.APPROVE, model.project_id)
    before = current.version_id if current else None
    alias = current or Alias(model=model, name=name)
    alias.version = version
    alias.full_clean()
    alias.save()
    record(
        actor=actor,
        action="alias.set",
        target=version,
        project_id=model.project_id,
        alias=name,
        before=before,
    )
    events.ring(model.project_id, "model", model.pk)
    return alias


@transaction.atomic
def alias_remove(*, actor: User, model: Model, name: str) -> None:
    """Removes an alias; the version stays."""
    policy.require(actor, policy.WRITE, model.project_id)
    alias = Alias.objects.filter(model=model, name=name).first()
    if alias is None:
        raise Problem(f"There is no alias “{name}”.", code="not_found", status=404)
    if alias.protected:
        policy.require(actor, policy.APPROVE, model.project_id)
    record(actor=actor, action="alias.remove", target=alias.version, project_id=model.project_id, alias=name)
    alias.delete()
    events.ring(model.project_id, "model", model.pk)


@transaction.atomic
def version_decide(*, actor: User, version: Version, approve: bool, note: str = "") -> Version:
    """Approves or declines a version; its maker may not approve it (four eyes) unless alone as superuser."""
    policy.require(actor, policy.APPROVE, version.model.project_id)
    if approve and version.created_by_id == actor.pk and not actor.is_superuser:
        raise Conflict("Somebody other than its maker must approve a version.")
    if approve and version.state != VersionState.READY:
        raise Conflict("Only a version that is ready can be approved.")
    decision = Approval.APPROVED if approve else Approval.DECLINED
    Version.objects.filter(pk=version.pk).update(approval=decision, approved_by=actor, revision=F("revision") + 1)
    record(
        actor=actor,
        action=f"version.{decision}",
        target=version,
        project_id=version.model.project_id,
        note=note,
    )
    events.ring(version.model.project_id, "version", version.pk)
    return Version.objects.get(pk=version.pk)


def version_move(*, version: Version, state: str, reason: str = "") -> bool:
    """Compare-and-set of the state along the transition table; False when somebody was faster."""
    sources = [source for source, targets in VERSION_TRANSITIONS.items() if state in targets]
    changed = Version.objects.filter(pk=version.pk, state__in=sources).update(
        state=state, reason=reason, revision=F("revision") + 1
    )
    if changed:
        events.ring(version.model.project_id, "version", version.pk)
    return changed == 1


def export_request(
    *,
    actor: User | None,
    version: Version,
    exporters: list[str],
    options: dict[str, dict[str, Any]] | None = None,
) -> list[Job]:
    """One job per format. options: {exporter: its options}, of the named exporters only."""
    policy.require(actor, policy.WRITE, version.model.project_id)
    if version.state != VersionState.READY:
        raise Conflict("Only a version that is ready can be exported.")
    given = options or {}
    for name in exporters:
        options_of(exporter(name), given.get(name, {}), field=f"options.{name}")
    for name in given.keys() - set(exporters):
        raise Problem(f"options.{name[:40]}: this exporter is not asked for.", field=f"options.{name[:40]}")
    with transaction.atomic():
        return [
            submit(
                "export",
                project=version.model.project,
                params={"version_id": version.pk, "exporter": name, "options": given.get(name, {})},
                actor=actor,
                subject=f"{version} → {name}",
            )
            for name in exporters
        ]


def optimize_request(*, actor: User | None, artifact: Artifact, optimizer: str, options: dict[str, Any]) -> Job:
    """A job that makes a variant of an ONNX artifact and measures both."""
    policy.require(actor, policy.WRITE, artifact.version.model.project_id)
    if artifact.format != Format.ONNX:
        raise Problem("Only an ONNX artifact can be optimized.", field="artifact")
    if artifact.verdict == Verdict.REJECTED or artifact.version.state != VersionState.READY:
        raise Conflict("This artifact was rejected, or its version is not ready.")
    options_of(optimizer_named(optimizer), options)
    return submit(
        "optimize",
        project=artifact.version.model.project,
        params={"artifact_id": artifact.pk, "optimizer": optimizer, "options": options},
        actor=actor,
        subject=f"{artifact.version} · {optimizer}",
    )
