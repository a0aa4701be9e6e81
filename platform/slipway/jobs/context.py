"""What a handler sees of its job: steps, log, progress, effects, and the signal to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from slipway import events
from slipway.jobs import failpoints, leases
from slipway.jobs.leases import Claim
from slipway.jobs.models import Job, JobEffect, JobLog, JobStep, State

log = structlog.get_logger(__name__)


class Stopped(Exception):
    """The job must stop: cancelled, released by a worker that shuts down, or its lease is lost."""


class Interrupted(Exception):
    """The work was ended from outside (a signal, a machine that ran out of memory): worth another attempt.

    The text is for the user.
    """


class JobContext:
    """The handle of one attempt. All of its writes are refused once the lease belongs to another attempt."""

    def __init__(self, claimed: Claim) -> None:
        self.id = claimed.job_id
        self.attempt = claimed.attempt
        self.project_id = claimed.project_id
        self.kind = claimed.kind
        self.failures = claimed.failures
        self.stop = threading.Event()
        self.stop_reason = ""

    def check(self) -> None:
        """Raises Stopped when the job must not go on; long loops call it between rounds."""
        if self.stop.is_set():
            raise Stopped(self.stop_reason)

    def log(self, text: str, level: str = "info") -> None:
        """Adds a line to the job's log."""
        for line in text.splitlines() or [""]:
            JobLog.objects.create(
                job_id=self.id, attempt=self.attempt, level=level, text=line[:4000].replace("\x00", "�")
            )
        events.ring(self.project_id, "log", self.id)

    def progress(self, share: float, text: str = "") -> None:
        """Sets the progress (0..1) and, with a text, says in a log line what is going on."""
        self._update(progress=min(max(share, 0.0), 1.0))
        if text:
            self.log(text)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A named step: shown in the timeline, and a failpoint `<kind>.<name>` before it begins."""
        self.check()
        failpoints.reached(f"{self.kind}.{name}")
        self._update(step=name)
        row, _ = JobStep.objects.get_or_create(job_id=self.id, attempt=self.attempt, name=name)
        yield
        JobStep.objects.filter(pk=row.pk).update(finished_at=Now())
        self.check()

    def once(self, key: str, effect: Callable[[], Any]) -> Any:
        """Runs an external effect unless an earlier attempt's result is remembered.

        The effect itself must find what a killed attempt left behind (search by the job's tag, then create):
        between doing and remembering there is always a moment in which a process can die.
        """
        self.check()
        known = JobEffect.objects.filter(job_id=self.id, key=key).first()
        if known is not None:
            return known.result
        # A process that was frozen may come back long after its lease: ask before touching the world.
        if not leases.heartbeat(self.id, self.attempt).held:
            self._lose("lease lost")
            raise Stopped(self.stop_reason)
        result = effect()
        failpoints.reached(f"{self.kind}.{key.partition(':')[0]}-made")
        with transaction.atomic():
            if leases.held(self.id, self.attempt) is None:
                raise Stopped("lease lost")
            JobEffect.objects.create(job_id=self.id, key=key, attempt=self.attempt, result=result)
        return result

    def remembered(self, key: str) -> Any:
        """The result of an effect that an earlier attempt finished, or None."""
        known = JobEffect.objects.filter(job_id=self.id, key=key).first()
        return None if known is None else known.result

    def note_run(self, run_id: str) -> None:
        """Links the job to the MLflow run that records it."""
        self._update(mlflow_run_id=run_id)

    def _update(self, **values: Any) -> None:
        changed = Job.objects.filter(pk=self.id, attempt=self.attempt, state=State.RUNNING).update(
            revision=F("revision") + 1, **values
        )
        if not changed:
            self._lose("lease lost")
            raise Stopped(self.stop_reason)
        events.ring(self.project_id, "job", self.id)

    def _lose(self, reason: str) -> None:
        if not self.stop.is_set():
            self.stop_reason = reason
            self.stop.set()


class Heartbeat:
    """Extends the lease from a thread of its own; sets `job.stop` when the job must end.

    A worker cut off from the database stops its own children before its lease can have run out for
    everybody else: monotonic time here, database time there.
    """

    def __init__(self, job: JobContext) -> None:
        self.job = job
        self.period = leases.LEASE.total_seconds() / 5
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{job.id}", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        last = time.monotonic()
        try:
            while not self._over.wait(self.period):
                try:
                    beat = leases.heartbeat(self.job.id, self.job.attempt)
                # InterfaceError: the connection was already closed when the server went away.
                except (DatabaseError, InterfaceError) as error:
                    log.warning("heartbeat_failed", job=self.job.id, error=str(error))
                    connection.close()
                    if time.monotonic() - last > leases.LEASE.total_seconds() * 0.8:
                        return self.job._lose("database away")
                    continue
                last = time.monotonic()
                if not beat.held:
                    return self.job._lose("lease lost")
                if beat.cancel:
                    return self.job._lose("cancelled")
                if beat.release:
                    return self.job._lose("released")
        finally:
            connection.close()
