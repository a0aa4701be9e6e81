"""Writes to targets, endpoints and deployments. Rollouts are in `rollouts`."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from deployments import tuning
from deployments.models import (
    DEPLOYMENT_TRANSITIONS,
    ROLLOUT_LIVE,
    Access,
    Deployment,
    DeploymentState,
    Endpoint,
    Rollout,
    Target,
)
from registry import selectors as registered
from registry.models import Artifact, Format, Verdict, VersionState
from slipway import events
from slipway.accounts import policy
from slipway.accounts.models import Project, User
from slipway.api.problems import Conflict, Problem
from slipway.audit.services import record

SERVABLE = (Format.ONNX, Format.ORT, Format.PMML)


def target_default(*, project: Project) -> Target:
    """The project's own inference server."""
    return Target.objects.get_or_create(project=project, name="slipway")[0]


@transaction.atomic
def endpoint_create(
    *,
    actor: User | None,
    project: Project,
    name: str,
    access: str = Access.TOKEN,
    artifact: Artifact | None = None,
    provider: str | None = None,
    upstream: dict[str, Any] | None = None,
    settings: tuning.EndpointSettings | None = None,
) -> Endpoint:
    """Makes an endpoint; with an artifact it answers as soon as the servers have loaded that."""
    policy.require(actor, policy.DEPLOY, project)
    columns = tuning.columns_of(settings) if settings is not None else {}
    endpoint = Endpoint(project=project, target=target_default(project=project), name=name, access=access, **columns)
    endpoint.full_clean()
    endpoint.save()
    record(
        actor=actor,
        action="endpoint.create",
        target=endpoint,
        project_id=project.pk,
        name=name,
        access=access,
        **({"settings": told} if (told := tuning.settings_of(endpoint)) else {}),
    )
    if artifact is not None:
        deployment_place(actor=actor, endpoint=endpoint, artifact=artifact, provider=provider, upstream=upstream)
    events.ring(project.pk, "endpoint", endpoint.pk)
    return endpoint


@transaction.atomic
def endpoint_delete(*, actor: User, endpoint: Endpoint) -> None:
    """Takes an endpoint off the servers: its deployments retire, its name becomes free."""
    policy.require(actor, policy.DEPLOY, endpoint.project_id)
    if Rollout.objects.filter(endpoint=endpoint, state__in=ROLLOUT_LIVE).exists():
        raise Conflict("A rollout is under way here. Abort it first.")
    record(
        actor=actor,
        action="endpoint.delete",
        target=endpoint,
        project_id=endpoint.project_id,
        name=endpoint.name,
    )
    project_id, key = endpoint.project_id, endpoint.pk
    Rollout.objects.filter(endpoint=endpoint).delete()
    endpoint.delete()
    events.ring(project_id, "endpoint", key)


def artifact_check(*, endpoint: Endpoint, artifact: Artifact, forwarded: bool = False) -> None:
    """Refuses what must not or cannot be served here, by whichever door it comes.

    `forwarded`: another server answers, and the artifact names what was approved, in any format.
    """
    version = artifact.version
    if version.model.project_id != endpoint.project_id:
        raise Problem("This artifact belongs to another project.", field="artifact")
    if version.state != VersionState.READY:
        raise Conflict(f"Version {version.number} is {version.get_state_display().lower()}; it cannot be deployed.")
    if artifact.verdict == Verdict.REJECTED:
        raise Conflict("The scan rejected this artifact; it cannot be deployed.")
    if artifact.format not in SERVABLE and not forwarded:
        raise Problem(
            f"The slipway target serves ONNX, ORT and PMML; this artifact is {artifact.get_format_display()}.",
            field="artifact",
        )
    if artifact.format == Format.PMML and not forwarded and registered.has_onnx(version):
        raise Problem(
            "This version has an ONNX export, which answers faster. PMML is served where there is none.",
            field="artifact",
        )
    if not artifact.attestation:
        raise Conflict("This artifact is not signed; the inference servers would refuse it.")


@transaction.atomic
def deployment_place(
    *,
    actor: User | None,
    endpoint: Endpoint,
    artifact: Artifact,
    provider: str | None = None,
    upstream: dict[str, Any] | None = None,
) -> Deployment:
    """Places the first artifact behind an endpoint, with all of its traffic."""
    policy.require(actor, policy.DEPLOY, endpoint.project_id)
    runtime = tuning.runtime_of(provider, upstream)
    locked = endpoint_lock(endpoint)
    artifact_check(endpoint=locked, artifact=artifact, forwarded=bool(runtime["upstream"]))
    if locked.deployments.filter(state=DeploymentState.LIVE).exists():
        raise Conflict("This endpoint already answers. Start a rollout to change what it serves.")
    deployment = Deployment.objects.create(
        endpoint=locked, artifact=artifact, state=DeploymentState.LIVE, weight=100, created_by=actor, **runtime
    )
    record(
        actor=actor,
        action="deployment.place",
        target=deployment,
        project_id=locked.project_id,
        endpoint=locked.name,
        sha256=artifact.sha256,
        version=artifact.version.number,
        **tuning.told(deployment),
    )
    events.ring(locked.project_id, "endpoint", locked.pk)
    return deployment


@transaction.atomic
def settings_change(
    *, actor: User, endpoint: Endpoint, settings: tuning.EndpointSettings, revision: int | None = None
) -> Endpoint:
    """Sets the given serving settings; the others stay. The servers follow within seconds, without a new model."""
    policy.require(actor, policy.DEPLOY, endpoint.project_id)
    locked = endpoint_lock(endpoint)
    if revision is not None and revision != locked.revision:
        raise Problem("This endpoint changed since you looked. Read it again.", code="precondition_failed", status=412)
    before, columns = tuning.settings_of(locked), tuning.columns_of(settings)
    if all(getattr(locked, name) == value for name, value in columns.items()):
        return locked
    Endpoint.objects.filter(pk=locked.pk).update(revision=F("revision") + 1, **columns)
    locked.refresh_from_db()
    record(
        actor=actor,
        action="endpoint.settings",
        target=locked,
        project_id=locked.project_id,
        name=locked.name,
        before=before,
        settings=tuning.settings_of(locked),
    )
    events.ring(locked.project_id, "endpoint", locked.pk)
    return locked


def endpoint_lock(endpoint: Endpoint) -> Endpoint:
    """The endpoint's row, locked: everything that changes its deployments takes this lock first."""
    return Endpoint.objects.select_for_update(no_key=True).get(pk=endpoint.pk)


def weights_set(*, endpoint: Endpoint, weights: dict[int, int]) -> None:
    """Sets the weight of every deployment of a locked endpoint in one go: {deployment id: percent}.

    Deployments that are not named go to 0 and stay warm. A weight above 0 makes a deployment live.
    """
    if any(type(weight) is not int or not 0 <= weight <= 100 for weight in weights.values()):
        raise Problem("A weight is a whole number of percent from 0 to 100.", field="weights")
    if sum(weights.values()) != 100:
        raise Problem(f"The weights sum to {sum(weights.values())}, not to 100.", field="weights")
    for row in endpoint.deployments.exclude(state=DeploymentState.RETIRED):
        weight = weights.get(row.pk, 0)
        if weight:
            state = DeploymentState.LIVE
        else:
            state = DeploymentState.SHADOW if row.state == DeploymentState.SHADOW else DeploymentState.WARM
        if (row.state, row.weight) != (state, weight):
            deployment_move(deployment=row, state=state, weight=weight)
    Endpoint.objects.filter(pk=endpoint.pk).update(revision=F("revision") + 1)
    events.ring(endpoint.project_id, "endpoint", endpoint.pk)


def deployment_move(*, deployment: Deployment, state: str, weight: int = 0) -> None:
    """Compare-and-set along the transition table."""
    if state != deployment.state and state not in DEPLOYMENT_TRANSITIONS[deployment.state]:
        raise Conflict(f"A deployment cannot go from {deployment.state} to {state}.")
    changed = Deployment.objects.filter(pk=deployment.pk, state=deployment.state).update(
        state=state,
        weight=weight,
        retired_at=timezone.now() if state == DeploymentState.RETIRED else None,
    )
    if not changed:
        raise Conflict("Somebody else changed this deployment at the same moment. Try again.")


def candidate_add(
    *, actor: User | None, endpoint: Endpoint, artifact: Artifact, runtime: dict[str, Any] | None = None
) -> Deployment:
    """The warm deployment of an artifact on a locked endpoint, made or found; `runtime` is of `runtime_of`."""
    runtime = runtime or tuning.runtime_of()
    artifact_check(endpoint=endpoint, artifact=artifact, forwarded=bool(runtime["upstream"]))
    found = endpoint.deployments.exclude(state=DeploymentState.RETIRED).filter(artifact=artifact, **runtime).first()
    if found is not None:
        if found.state == DeploymentState.LIVE:
            raise Conflict("This artifact already has traffic on this endpoint.")
        return found
    return Deployment.objects.create(
        endpoint=endpoint, artifact=artifact, state=DeploymentState.WARM, created_by=actor, **runtime
    )


def others_retire(*, endpoint: Endpoint, keep: set[int]) -> None:
    """Retires the warm deployments of a locked endpoint that nobody needs any more."""
    for row in endpoint.deployments.filter(state__in=[DeploymentState.WARM, DeploymentState.SHADOW]):
        if row.pk not in keep:
            deployment_move(deployment=row, state=DeploymentState.RETIRED)


@transaction.atomic
def weights_change(*, actor: User, endpoint: Endpoint, weights: dict[str, int]) -> None:
    """Sets the weights by hand: {deployment id: percent}. A rollout that moves them must end first."""
    policy.require(actor, policy.DEPLOY, endpoint.project_id)
    locked = endpoint_lock(endpoint)
    if Rollout.objects.filter(endpoint=locked, state__in=ROLLOUT_LIVE).exists():
        raise Conflict("A rollout moves the weights of this endpoint. Abort it first.")
    rows = locked.deployments.exclude(state=DeploymentState.RETIRED).select_related("artifact__version__model")
    known = {str(row.pk): row for row in rows}
    chosen: dict[int, int] = {}
    for key, weight in weights.items():
        row = known.get(key)
        if row is None:
            raise Problem(f"This endpoint has no deployment {key[:40]}.", field="weights")
        if weight and row.state != DeploymentState.LIVE:
            artifact_check(endpoint=locked, artifact=row.artifact, forwarded=bool(row.upstream))
        chosen[row.pk] = weight
    weights_set(endpoint=locked, weights=chosen)
    record(actor=actor, action="endpoint.weights", target=locked, project_id=locked.project_id, weights=weights)
