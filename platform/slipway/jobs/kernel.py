"""Runs one job: claim, work under a heartbeat, complete in one fenced transaction."""

from __future__ import annotations

import os
import socket
import uuid

import structlog
from django.core.exceptions import ValidationError
from django.db import InterfaceError, OperationalError, connection, transaction

from engine.errors import EngineError
from slipway import events
from slipway.api.problems import Problem, Unavailable
from slipway.jobs import failpoints, leases
from slipway.jobs.context import Heartbeat, Interrupted, JobContext, Stopped
from slipway.jobs.kinds import Done, Kind, Later
from slipway.jobs.models import MAX_FAILURES, Job, State
from slipway.jobs.services import ring

log = structlog.get_logger(__name__)


def worker_name() -> str:
    """host:main:pid. `main` is the Celery main process, by which a shutdown finds its jobs."""
    return f"{worker_prefix()}{os.getpid()}"


def worker_prefix() -> str:
    """What the names of all workers under one Celery main process begin with."""
    return f"{socket.gethostname()}:{os.environ.get('SLIPWAY_WORKER_MAIN', os.getpid())}:"


def execute(kind: Kind, job_id: int) -> None:
    """Claims the job and runs its handler; whatever happens, the row says so."""
    claimed = leases.claim(job_id, worker_name())
    if claimed is None:
        return
    events.ring(claimed.project_id, "job", job_id)
    job = JobContext(claimed)
    with structlog.contextvars.bound_contextvars(job=job_id, attempt=claimed.attempt):
        try:
            with Heartbeat(job):
                outcome = kind.handler(job, kind.params.model_validate(claimed.params))
                job.check()
                _settle(kind, job, outcome)
        except Stopped as stopped:
            _stop(job, str(stopped))
        except (OperationalError, InterfaceError, Unavailable) as error:
            # Something we depend on is away: wait for it without counting against the job.
            connection.close()
            _later(kind, job, Later(5.0, f"Waiting: {_first_line(error)}"))
        except Interrupted as error:
            _again(kind, job, str(error))
        except (EngineError, Problem, ValidationError) as error:
            if job.stop.is_set():
                _stop(job, job.stop_reason)
            else:
                _fail(job, _text(error), getattr(error, "code", None) or "invalid")
        except Exception:
            _unexpected(kind, job)


def _settle(kind: Kind, job: JobContext, outcome: Done | Later) -> None:
    if isinstance(outcome, Later):
        _later(kind, job, outcome)
        return
    failpoints.reached(f"{job.kind}.commit")
    with transaction.atomic():
        row = leases.held(job.id, job.attempt)
        if row is None:
            raise Stopped("lease lost")
        more = outcome.commit() if outcome.commit else None
        row.result = {**outcome.result, **(more or {})}
        row.progress = 1.0
        leases.end(row, State.SUCCEEDED)


def _later(kind: Kind, job: JobContext, later: Later) -> None:
    if leases.requeue(job.id, job.attempt, delay=later.seconds, reason=later.reason, failed=False):
        events.ring(job.project_id, "job", job.id)
        if later.seconds <= 0:
            ring(job.id, kind.queue, kind.name)


def _stop(job: JobContext, reason: str) -> None:
    """Cancelled: end. Released: back to the queue at once. Lost: the row is another attempt's, touch nothing."""
    if reason == "cancelled":
        with transaction.atomic():
            row = leases.held(job.id, job.attempt)
            if row is not None:
                leases.end(row, State.CANCELLED, reason="Cancelled.")
    elif reason == "released":
        leases.requeue(job.id, job.attempt, delay=0, reason="Its worker was shut down.", failed=False)
    else:
        log.warning("job_given_up", reason=reason)


def _fail(job: JobContext, text: str, code: str, reference: str = "") -> None:
    job.log(text, level="error")
    with transaction.atomic():
        row = leases.held(job.id, job.attempt)
        if row is not None:
            leases.end(row, State.FAILED, reason=text, code=code, reference=reference)


def _unexpected(kind: Kind, job: JobContext) -> None:
    reference = uuid.uuid4().hex[:12]
    log.exception("job_failed_unexpectedly", reference=reference, kind=kind.name)
    _again(kind, job, f"Unexpected error. Reference {reference}.", reference)


def _again(kind: Kind, job: JobContext, text: str, reference: str = "") -> None:
    """Another attempt, later each time; after MAX_FAILURES in a row the job has failed."""
    if job.stop.is_set():
        _stop(job, job.stop_reason)
        return
    if job.failures + 1 >= MAX_FAILURES:
        more = "the worker's log says more" if reference else "look at the last lines of its log, then retry"
        code = "unexpected" if reference else "interrupted"
        _fail(job, f"{text} It failed {MAX_FAILURES} times; {more}.", code, reference)
        return
    job.log(text, level="error")
    delay = float(2**job.failures)
    leases.requeue(job.id, job.attempt, delay=delay, reason=f"{text} Trying again.", failed=True)


def _text(error: Exception) -> str:
    return error.messages[0] if isinstance(error, ValidationError) else str(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def job_of(job_id: int) -> Job:
    """The job's row, for handlers that need its project or creator."""
    return Job.objects.select_related("project", "created_by").get(pk=job_id)
