"""Claim, heartbeat, release, sweep: every statement is fenced by the attempt and uses database time."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from slipway import events
from slipway.environment import environment
from slipway.jobs.kinds import when_ended
from slipway.jobs.models import MAX_FAILURES, Job, JobLog, State

LEASE = dt.timedelta(seconds=environment.lease_seconds)


@dataclass(frozen=True)
class Claim:
    """What a worker holds: the job's row at the moment of the claim."""

    job_id: int
    attempt: int
    project_id: int
    kind: str
    params: dict[str, Any]
    failures: int


def claim(job_id: int, worker: str) -> Claim | None:
    """Takes a due job, or one whose lease ran out, in one statement. None: somebody else has it, or it ended."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE jobs_job SET
                failures = failures + CASE WHEN state = 'running' THEN 1 ELSE 0 END,
                state = 'running', attempt = attempt + 1, lease_until = now() + %s, claimed_by = %s,
                release_requested = false, reason = '', started_at = coalesce(started_at, now()),
                revision = revision + 1
            WHERE id = %s AND NOT cancel_requested AND (
                (state = 'queued' AND available_at <= now())
                OR (state = 'running' AND lease_until < now() AND failures + 1 < %s))
            RETURNING id, attempt, project_id, kind, params::text, failures
            """,
            [LEASE, worker, job_id, MAX_FAILURES],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    return Claim(row[0], row[1], row[2], row[3], json.loads(row[4]), row[5])


@dataclass(frozen=True)
class Beat:
    """What a heartbeat learned."""

    held: bool
    cancel: bool = False
    release: bool = False


def heartbeat(job_id: int, attempt: int) -> Beat:
    """Extends the lease if this attempt still holds it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE jobs_job SET lease_until = now() + %s WHERE id = %s AND attempt = %s AND state = 'running' "
            "RETURNING cancel_requested, release_requested",
            [LEASE, job_id, attempt],
        )
        row = cursor.fetchone()
    return Beat(False) if row is None else Beat(True, cancel=row[0], release=row[1])


def held(job_id: int, attempt: int) -> Job | None:
    """The job's row, locked, if this attempt still holds it; call inside a transaction."""
    return Job.objects.select_for_update(no_key=True).filter(pk=job_id, attempt=attempt, state=State.RUNNING).first()


def requeue(job_id: int, attempt: int, *, delay: float, reason: str, failed: bool) -> bool:
    """Gives the job back to the queue, due after `delay` seconds. `failed` counts towards the limit.

    A job that somebody asked to stop meanwhile ends instead: nobody could claim it again.
    """
    mine = Job.objects.filter(pk=job_id, attempt=attempt, state=State.RUNNING)
    changed = mine.filter(cancel_requested=False).update(
        state=State.QUEUED,
        lease_until=None,
        claimed_by="",
        release_requested=False,
        available_at=Now() + dt.timedelta(seconds=delay),
        rung_at=None,
        reason=reason,
        failures=F("failures") + 1 if failed else 0,
        revision=F("revision") + 1,
    )
    if not changed:
        with transaction.atomic():
            row = held(job_id, attempt)
            if row is not None and row.cancel_requested:
                end(row, State.CANCELLED, reason="Cancelled.")
    return changed == 1


def end(job: Job, state: str, *, reason: str = "", code: str = "", reference: str = "") -> None:
    """Moves a locked, live job to an end state."""
    job.state = state
    job.reason = reason
    job.error_code = code
    job.reference = reference
    job.lease_until = None
    job.finished_at = Now()
    job.revision += 1
    job.save(
        update_fields=[
            "state", "reason", "error_code", "reference", "lease_until", "finished_at", "revision",
            "result", "progress", "step",
        ]
    )  # fmt: skip
    when_ended(job)
    events.ring(job.project_id, "job", job.pk)


@transaction.atomic
def expired_settle(limit: int = 200) -> int:
    """Requeues what has no live lease any more; ends what was cancelled or failed too often."""
    rows = list(
        Job.objects.select_for_update(skip_locked=True, no_key=True)
        .filter(state=State.RUNNING, lease_until__lt=Now())
        .order_by("lease_until")[:limit]
    )
    for job in rows:
        lost = f"Attempt {job.attempt} ended without a word (worker {job.claimed_by})."
        JobLog.objects.create(job=job, attempt=job.attempt, level="warning", text=lost)
        job.failures += 1
        if job.cancel_requested:
            end(job, State.CANCELLED, reason="Cancelled.")
        elif job.failures >= MAX_FAILURES:
            job.save(update_fields=["failures"])
            end(
                job,
                State.FAILED,
                reason=f"{lost} It failed {job.failures} times in a row; "
                "look at the last lines of the log, then retry.",
                code="poison",
            )
        else:
            job.save(update_fields=["failures"])
            # `failures` is already counted here, so the requeue must not reset it.
            Job.objects.filter(pk=job.pk).update(
                state=State.QUEUED,
                lease_until=None,
                claimed_by="",
                available_at=Now(),
                rung_at=None,
                reason=lost,
                revision=F("revision") + 1,
            )
            events.ring(job.project_id, "job", job.pk)
    return len(rows)


def due_unrung(per_queue: int = 50, quiet: dt.timedelta = dt.timedelta(seconds=10)) -> list[tuple[int, str, str]]:
    """(id, queue, kind) of due jobs whose ring may have been lost, the longest due first; marks them as rung."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH rung AS (
                UPDATE jobs_job SET rung_at = now() WHERE id IN (
                    SELECT id FROM (
                        SELECT id, rung_at, row_number() OVER (PARTITION BY queue ORDER BY available_at, id) AS place
                        FROM jobs_job WHERE state = 'queued' AND available_at <= now()
                    ) due WHERE place <= %s AND (rung_at IS NULL OR rung_at < now() - %s)
                ) RETURNING id, queue, kind, available_at
            ) SELECT id, queue, kind FROM rung ORDER BY available_at, id
            """,
            [per_queue, quiet],
        )
        return list(cursor.fetchall())
