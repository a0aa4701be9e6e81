"""Rollouts: what people may do to one, and the reconciler's single step.

`rollout_advance` compares what is with what should be and does at most one thing. It can run twice, be
killed anywhere, and run beside a person's click: it locks the endpoint, reads again, and moves the state
by compare-and-set. Sending traffic back is one write of weights and needs neither Celery nor Redis.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from deployments import desired, evidence, tuning
from deployments.models import (
    ROLLOUT_LIVE,
    ROLLOUT_TRANSITIONS,
    Decision,
    DeploymentState,
    Endpoint,
    Rollout,
    RolloutState,
)
from deployments.plans import plan_of
from deployments.services import (
    artifact_check,
    candidate_add,
    deployment_move,
    endpoint_lock,
    others_retire,
    weights_set,
)
from registry.models import Artifact
from slipway import events
from slipway.accounts import policy
from slipway.accounts.models import User
from slipway.api.problems import Conflict, Problem
from slipway.audit.services import record
from slipway.jobs.services import submit

AT_GATE = "Waiting for a person at this gate."
NOT_READY_LIMIT = dt.timedelta(seconds=120)


@transaction.atomic
def rollout_start(
    *,
    actor: User | None,
    endpoint: Endpoint,
    artifact: Artifact,
    steps: list[dict[str, Any]] | None = None,
    guard: dict[str, Any] | None = None,
    provider: str | None = None,
    upstream: dict[str, Any] | None = None,
) -> Rollout:
    """Begins to move an endpoint to another artifact, or the same on another provider or upstream.

    The first step waits until the servers have it. Without a provider, that of the stable deployment is kept.
    """
    policy.require(actor, policy.DEPLOY, endpoint.project_id)
    plan = plan_of(steps, guard)
    locked = endpoint_lock(endpoint)
    if Rollout.objects.filter(endpoint=locked, state__in=ROLLOUT_LIVE).exists():
        raise Conflict("A rollout is already under way on this endpoint.")
    live = list(locked.deployments.filter(state=DeploymentState.LIVE).order_by("-weight"))
    if not live:
        raise Conflict("This endpoint serves nothing yet. Deploy to it first.")
    stable = live[0]
    runtime = tuning.runtime_of(provider, upstream, like=stable)
    same = stable.artifact_id == artifact.pk or stable.artifact.sha256 == artifact.sha256
    if same and (stable.provider, stable.upstream) == (runtime["provider"], runtime["upstream"]):
        raise Problem("The endpoint already serves this artifact: a rollout to itself.", field="artifact")
    candidate = candidate_add(actor=actor, endpoint=locked, artifact=artifact, runtime=runtime)
    rollout = Rollout.objects.create(
        endpoint=locked,
        stable=stable,
        candidate=candidate,
        steps=[step.model_dump() for step in plan.steps],
        guard=plan.guard.model_dump(),
        created_by=actor,
    )
    decide(rollout, "start", f"Started: version {artifact.version.number} is to replace "
           f"version {stable.artifact.version.number}.", actor=actor, **tuning.told(candidate))  # fmt: skip
    rollout.job = submit(
        "rollout",
        project=locked.project,
        params={"rollout_id": rollout.pk},
        actor=actor,
        subject=f"{locked.name} → {artifact.version}",
        key=f"rollout:{rollout.pk}",
    )
    rollout.save(update_fields=["job"])
    return rollout


def decide(rollout: Rollout, action: str, text: str, *, actor: User | None = None, **data: Any) -> None:
    """Writes one line of the decision log and of the audit log."""
    Decision.objects.create(rollout=rollout, action=action, text=text, actor=actor, data=data)
    record(
        actor=actor,
        action=f"rollout.{action}",
        target=rollout,
        project_id=rollout.endpoint.project_id,
        text=text,
        **data,
    )
    events.ring(rollout.endpoint.project_id, "rollout", rollout.pk)


def _move(rollout: Rollout, state: str, **values: Any) -> None:
    if state != rollout.state and state not in ROLLOUT_TRANSITIONS[rollout.state]:
        raise Conflict(f"This rollout is {rollout.get_state_display().lower()}; that is not possible now.")
    if state != rollout.state and state not in ROLLOUT_LIVE:
        values["finished_at"] = timezone.now()
    changed = Rollout.objects.filter(pk=rollout.pk, state=rollout.state).update(
        state=state, revision=F("revision") + 1, **values
    )
    if not changed:
        raise Conflict("Somebody else changed this rollout at the same moment. Read it again.")
    rollout.refresh_from_db()


def _locked(rollout: Rollout, actor: User | None, revision: int | None, *, need: str = policy.DEPLOY) -> Rollout:
    """The rollout read anew under its endpoint's lock; refuses a change based on an old view."""
    policy.require(actor, need, rollout.endpoint.project_id)
    endpoint = endpoint_lock(rollout.endpoint)
    fresh = Rollout.objects.select_related("stable__artifact__version", "candidate__artifact__version").get(
        pk=rollout.pk
    )
    fresh.endpoint = endpoint
    if revision is not None and revision != fresh.revision:
        raise Problem("This rollout changed since you looked. Read it again.", code="precondition_failed", status=412)
    return fresh


def is_at_gate(rollout: Rollout) -> bool:
    """Whether the rollout waits for an approver."""
    return rollout.state == RolloutState.PAUSED and rollout.reason == AT_GATE


def _names(rollout: Rollout) -> tuple[int, int]:
    return rollout.stable.artifact.version.number, rollout.candidate.artifact.version.number


def _step_to(rollout: Rollout, index: int, text: str, actor: User | None, **data: Any) -> None:
    """Begins a step: its weights, its clock, its line in the log. After the last step the rollout bakes."""
    weight = rollout.steps[index]["weight"]
    weights_set(
        endpoint=rollout.endpoint,
        weights={rollout.candidate_id: weight, **({rollout.stable_id: 100 - weight} if weight < 100 else {})},
    )
    state = RolloutState.BAKING if weight == 100 else RolloutState.PROGRESSING
    _move(rollout, state, step=index, step_started_at=timezone.now(), reason="", evidence={})
    decide(rollout, "step", text, actor=actor, weight=weight, **data)


def _return_traffic(rollout: Rollout) -> None:
    """One write gives the stable version everything; the candidate leaves when it is idle."""
    weights_set(endpoint=rollout.endpoint, weights={rollout.stable_id: 100})
    rollout.candidate.refresh_from_db()
    deployment_move(deployment=rollout.candidate, state=DeploymentState.RETIRED)


@transaction.atomic
def rollout_pause(*, actor: User, rollout: Rollout, revision: int | None = None) -> Rollout:
    """Holds the weights where they are."""
    row = _locked(rollout, actor, revision)
    if row.state == RolloutState.PAUSED:
        raise Conflict("This rollout is paused already.")
    _move(row, RolloutState.PAUSED, reason=f"Paused by {actor.get_username()}.")
    decide(row, "pause", f"Paused by {actor.get_username()}.", actor=actor)
    return row


@transaction.atomic
def rollout_resume(*, actor: User, rollout: Rollout, revision: int | None = None) -> Rollout:
    """Goes on with the step it held; the step's clock starts again."""
    row = _locked(rollout, actor, revision)
    if row.state != RolloutState.PAUSED:
        raise Conflict("Only a paused rollout can be resumed.")
    _move(
        row,
        RolloutState.PROGRESSING,
        reason="",
        step_started_at=timezone.now() if row.step_started_at else None,
    )
    decide(row, "resume", f"Resumed by {actor.get_username()}.", actor=actor)
    return row


def _promote(actor: User, rollout: Rollout, revision: int | None, full: bool) -> Rollout:
    row = _locked(rollout, actor, revision, need=policy.VIEW)
    # A gate is an approver's to open; everything else is an operator's.
    policy.require(actor, policy.APPROVE if is_at_gate(row) else policy.DEPLOY, row.endpoint.project_id)
    if row.state not in (RolloutState.PROGRESSING, RolloutState.PAUSED):
        raise Conflict(f"This rollout is {row.get_state_display().lower()}; there is no step to go to.")
    artifact_check(endpoint=row.endpoint, artifact=row.candidate.artifact, forwarded=bool(row.candidate.upstream))
    ready, missing = desired.readiness(row.candidate)
    if not ready:
        raise Conflict(f"The candidate is not ready. {missing}")
    index = len(row.steps) - 1 if full else (row.step + 1 if row.step_started_at else 0)
    weight = row.steps[index]["weight"]
    _step_to(row, index, f"Moved to {weight} % by {actor.get_username()}.", actor)
    return row


@transaction.atomic
def rollout_promote(*, actor: User, rollout: Rollout, revision: int | None = None) -> Rollout:
    """Goes to the next step now."""
    return _promote(actor, rollout, revision, full=False)


@transaction.atomic
def rollout_full(*, actor: User, rollout: Rollout, revision: int | None = None) -> Rollout:
    """Gives the candidate all of the traffic now."""
    return _promote(actor, rollout, revision, full=True)


@transaction.atomic
def rollout_abort(*, actor: User, rollout: Rollout, revision: int | None = None) -> Rollout:
    """Sends all traffic back to the stable version and ends the rollout."""
    row = _locked(rollout, actor, revision)
    if not row.is_live:
        raise Conflict(f"This rollout is {row.get_state_display().lower()}; there is nothing to abort.")
    _return_traffic(row)
    _move(row, RolloutState.ABORTED, reason=f"Aborted by {actor.get_username()}.")
    decide(
        row,
        "abort",
        f"Aborted by {actor.get_username()}; version {_names(row)[0]} has all traffic.",
        actor=actor,
    )
    return row


@transaction.atomic
def rollout_roll_back(
    *, actor: User | None, rollout: Rollout, revision: int | None = None, reason: str = "", **data: Any
) -> Rollout:
    """One-click return, also after the promotion, while the old version is still warm."""
    row = _locked(rollout, actor, revision)
    if row.state in (RolloutState.ABORTED, RolloutState.ROLLED_BACK):
        raise Conflict("The traffic is already back.")
    if row.stable.state == DeploymentState.RETIRED:
        raise Conflict("The old version is no longer kept warm. Start a rollout to it.")
    if row.state == RolloutState.PROMOTED and Rollout.objects.filter(endpoint=row.endpoint_id, pk__gt=row.pk).exists():
        raise Conflict("A later rollout replaced this one. Roll that back.")
    why = reason or f"Rolled back by {actor.get_username() if actor else 'Slipway'}."
    _return_traffic(row)
    _move(row, RolloutState.ROLLED_BACK, reason=why)
    decide(row, "rollback", f"{why} Version {_names(row)[0]} has all traffic.", actor=actor, **data)
    return row


@transaction.atomic
def rollout_advance(*, rollout_id: int, observed: evidence.Observed) -> Rollout:
    """The reconciler: judges the observed numbers and does at most one thing."""
    row = _locked(Rollout.objects.select_related("endpoint").get(pk=rollout_id), None, None)
    if not row.is_live:
        return row
    servers = desired.servers_alive()
    broken = desired.failure(row.candidate, servers)
    if broken:
        return rollout_roll_back(actor=None, rollout=row, reason=f"The candidate failed. {broken}")
    try:
        artifact_check(endpoint=row.endpoint, artifact=row.candidate.artifact, forwarded=bool(row.candidate.upstream))
    except Conflict as error:  # rejected since the rollout began
        return rollout_roll_back(actor=None, rollout=row, reason=f"The candidate is no longer fit. {error}")
    if row.step_started_at is None:
        return _first_step(row, servers)
    if observed.since != row.step_started_at:
        # Read before somebody moved the rollout: numbers of one step say nothing about another.
        return row
    judged = evidence.judge(row, observed)
    Rollout.objects.filter(pk=row.pk).update(evidence=judged.as_json())
    row.evidence = judged.as_json()
    if judged.burst:
        return rollout_roll_back(actor=None, rollout=row, reason=judged.burst, evidence=judged.as_json())
    if row.state != RolloutState.PAUSED:
        _go_on(row, judged)
    events.ring(row.endpoint.project_id, "rollout", row.pk)
    return row


def _first_step(row: Rollout, servers: list[Any]) -> Rollout:
    ready, missing = desired.readiness(row.candidate, servers)
    if row.state == RolloutState.PAUSED:
        return row
    if ready:
        weight = row.steps[0]["weight"]
        _step_to(row, 0, f"Moved to {weight} %: every server has loaded version {_names(row)[1]}.", None)
    elif timezone.now() - row.created_at > NOT_READY_LIMIT:
        text = f"The candidate was not ready within {NOT_READY_LIMIT.seconds} s. {missing}"
        return rollout_roll_back(actor=None, rollout=row, reason=text)
    elif row.reason != missing:
        Rollout.objects.filter(pk=row.pk).update(reason=missing)
    return row


def _go_on(row: Rollout, judged: evidence.Judgement) -> None:
    step = row.steps[row.step]
    if judged.enough:
        if row.state == RolloutState.BAKING:
            _move(row, RolloutState.PROMOTED)
            others_retire(endpoint=row.endpoint, keep={row.stable_id, row.candidate_id})
            decide(
                row,
                "promote",
                f"Version {_names(row)[1]} is promoted: {judged.summary}.",
                evidence=judged.as_json(),
            )
        elif step["gate"]:
            if row.reason != AT_GATE:
                _move(row, RolloutState.PAUSED, reason=AT_GATE)
                decide(
                    row,
                    "gate",
                    "Enough evidence; waiting for a person at this gate.",
                    evidence=judged.as_json(),
                )
        else:
            weight = row.steps[row.step + 1]["weight"]
            _step_to(row, row.step + 1, f"Moved to {weight} %: {judged.summary}.", None, evidence=judged.as_json())
    elif judged.overdue and row.state == RolloutState.PROGRESSING:
        text = f"Held: not enough evidence within {step['max_seconds']:.0f} s ({judged.summary})."
        _move(row, RolloutState.PAUSED, reason=text)
        decide(row, "hold", text, evidence=judged.as_json())
