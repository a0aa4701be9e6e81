"""Writes to jobs from outside the kernel: submit, cancel, retry, ring, sweep."""

from __future__ import annotations

import datetime as dt
from typing import Any

import structlog
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from kombu.exceptions import OperationalError as BrokerAway
from redis.exceptions import RedisError

from slipway import events
from slipway.accounts import policy
from slipway.accounts.models import Project, User
from slipway.api.problems import Conflict
from slipway.celery import app
from slipway.jobs import leases
from slipway.jobs.kinds import kind_of
from slipway.jobs.models import LIVE, Job, JobLog, State

log = structlog.get_logger(__name__)


def ring(job_id: int, queue: str, kind: str) -> None:
    """Tells the workers of a queue that a job is due. Failing is fine: the sweep rings again."""
    try:
        app.send_task(f"{queue}.{kind}", args=[job_id], queue=queue, retry=False, expires=600)
    except (BrokerAway, RedisError, OSError) as error:
        log.warning("ring_failed", job=job_id, error=str(error))


def submit(
    kind: str,
    *,
    project: Project,
    params: dict[str, Any],
    actor: User | None = None,
    subject: str = "",
    parent: Job | None = None,
    key: str | None = None,
    delay: float = 0.0,
) -> Job:
    """Records a job in the caller's transaction and rings after its commit.

    With a `key` the same job is submitted once: a second call returns the first job.
    """
    declared = kind_of(kind)
    with transaction.atomic():
        values: dict[str, Any] = {
            "project": project,
            "kind": kind,
            "queue": declared.queue,
            "params": declared.params.model_validate(params).model_dump(mode="json"),
            "subject": subject[:200],
            "parent": parent,
            "created_by": actor,
        }
        if delay:
            values["available_at"] = Now() + dt.timedelta(seconds=delay)
        if key is None:
            job, created = Job.objects.create(**values), True
        else:
            job, created = Job.objects.get_or_create(key=key, defaults=values)
        if created:
            events.ring(project.pk, "job", job.pk)
            if not delay:
                transaction.on_commit(lambda: ring(job.pk, job.queue, kind), robust=True)
    return job


@transaction.atomic
def job_cancel(*, actor: User | None, job: Job) -> Job:
    """A queued job ends at once; a running one is asked to stop and ends within a heartbeat."""
    policy.require(actor, policy.WRITE, job.project_id)
    row = Job.objects.select_for_update(no_key=True).get(pk=job.pk)
    if row.state not in LIVE:
        raise Conflict(f"This job has already ended ({row.get_state_display()}).")
    who = actor.get_username() if actor else "slipway"
    JobLog.objects.create(job=row, attempt=row.attempt, level="warning", text=f"Cancelled by {who}.")
    if row.state == State.QUEUED:
        leases.end(row, State.CANCELLED, reason=f"Cancelled by {who}.")
    else:
        row.cancel_requested = True
        row.revision += 1
        row.save(update_fields=["cancel_requested", "revision"])
        events.ring(row.project_id, "job", row.pk)
    return Job.objects.get(pk=row.pk)


@transaction.atomic
def job_wake(*, job_id: int) -> None:
    """What a job that comes again later was waiting for has happened: it is due now.

    A row that somebody holds is left alone: whoever ends a parent takes its children's rows next, and we hold one.
    """
    rows = Job.objects.select_for_update(no_key=True, skip_locked=True)
    waiting = rows.filter(pk=job_id, state=State.QUEUED).first()
    if waiting is not None:
        Job.objects.filter(pk=job_id).update(available_at=Now(), rung_at=None)
        transaction.on_commit(lambda: ring(waiting.pk, waiting.queue, waiting.kind), robust=True)


@transaction.atomic
def job_retry(*, actor: User | None, job: Job) -> Job:
    """Puts a failed or cancelled job back into its queue, with a fresh count of failures."""
    policy.require(actor, policy.WRITE, job.project_id)
    changed = Job.objects.filter(pk=job.pk, state__in=[State.FAILED, State.CANCELLED]).update(
        state=State.QUEUED,
        failures=0,
        cancel_requested=False,
        finished_at=None,
        available_at=Now(),
        rung_at=None,
        reason="",
        error_code="",
        reference="",
        progress=0,
        revision=F("revision") + 1,
    )
    if not changed:
        raise Conflict("Only a failed or cancelled job can be retried.")
    row = Job.objects.get(pk=job.pk)
    who = actor.get_username() if actor else "slipway"
    JobLog.objects.create(job=row, attempt=row.attempt, text=f"Retried by {who}.")
    transaction.on_commit(lambda: ring(row.pk, row.queue, row.kind), robust=True)
    events.ring(row.project_id, "job", row.pk)
    return row


def sweep() -> int:
    """What beat asks for every few seconds: settle expired leases, ring for what is due."""
    settled = leases.expired_settle()
    for job_id, queue, kind in leases.due_unrung():
        ring(job_id, queue, kind)
    return settled


def workers_release(claimed_by_prefix: str) -> int:
    """Asks every job of a worker that is shutting down to stop and go back to its queue."""
    return Job.objects.filter(state=State.RUNNING, claimed_by__startswith=claimed_by_prefix).update(
        release_requested=True
    )
