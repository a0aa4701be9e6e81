"""Claim, fence, lease, retry, cancel, effects: on a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pydantic import BaseModel

from engine.errors import EngineError
from slipway.api.problems import Conflict, Unavailable
from slipway.jobs import kinds, leases, services
from slipway.jobs.context import Interrupted, Stopped
from slipway.jobs.kernel import execute
from slipway.jobs.kinds import Done, Later
from slipway.jobs.models import MAX_FAILURES, Job, JobEffect, JobLog, State

pytestmark = pytest.mark.django_db(transaction=True)


class Params(BaseModel):
    n: int = 0


def run(job: Job) -> Job:
    execute(kinds.kind_of(job.kind), job.pk)
    return Job.objects.get(pk=job.pk)


def expire(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - dt.timedelta(seconds=1))


def due(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(available_at=timezone.now() - dt.timedelta(seconds=1))


def test_job_succeeds_and_commits_in_its_transaction_when_handler_is_done(project, declare_kind) -> None:
    def handler(job: Any, params: Params) -> Done:
        with job.step("work"):
            job.log("hello")
            job.progress(0.5)
        return Done({"n": params.n}, commit=lambda: {"lines": JobLog.objects.filter(job_id=job.id).count()})

    declare_kind("t-done", handler, Params)
    job = run(services.submit("t-done", project=project, params={"n": 7}))
    assert (job.state, job.result, job.progress, job.attempt) == ("succeeded", {"n": 7, "lines": 1}, 1.0, 1)
    assert [step.name for step in job.steps.all()] == ["work"]


def test_second_delivery_does_nothing_when_job_has_ended(project, declare_kind) -> None:
    calls = []
    declare_kind("t-twice", lambda job, params: calls.append(1) or Done(), Params)
    job = services.submit("t-twice", project=project, params={})
    for _ in range(10):
        run(job)
    assert calls == [1]


def test_claim_is_won_once_when_twenty_threads_race(project, declare_kind) -> None:
    declare_kind("t-race", lambda job, params: Done(), Params)
    job = services.submit("t-race", project=project, params={})
    won, barrier = [], threading.Barrier(20)

    def race() -> None:
        barrier.wait()
        claimed = leases.claim(job.pk, "w")
        if claimed:
            won.append(claimed)
        connection.close()

    threads = [threading.Thread(target=race) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_late_commit_is_refused_when_lease_went_to_another_attempt(project, declare_kind) -> None:
    def zombie(job: Any, params: Params) -> Done:
        if job.attempt == 1:
            expire(Job.objects.get(pk=job.id))
            assert leases.claim(job.id, "other").attempt == 2
        return Done(commit=lambda: JobEffect.objects.create(job_id=job.id, key="x", attempt=1, result={}))

    declare_kind("t-zombie", zombie, Params)
    job = run(services.submit("t-zombie", project=project, params={}))
    assert (job.state, job.attempt) == ("running", 2)
    assert not JobEffect.objects.exists()


def test_effect_happens_once_when_attempt_is_repeated(project, declare_kind) -> None:
    effects = []

    def handler(job: Any, params: Params) -> Done:
        value = job.once("side", lambda: effects.append(1) or {"made": len(effects)})
        if job.attempt == 1:
            raise RuntimeError("boom")
        return Done(value)

    declare_kind("t-effect", handler, Params)
    job = run(services.submit("t-effect", project=project, params={}))
    assert job.state == "queued" and "Reference" in job.reason and "boom" not in job.reason
    due(job)
    job = run(job)
    assert (job.state, job.result, effects) == ("succeeded", {"made": 1}, [1])


def test_text_reaches_user_when_engine_error(project, declare_kind) -> None:
    def handler(job: Any, params: Params) -> Done:
        raise EngineError("The file is empty.", field="file", code="empty")

    declare_kind("t-engine", handler, Params)
    job = run(services.submit("t-engine", project=project, params={}))
    assert (job.state, job.reason, job.error_code) == ("failed", "The file is empty.", "empty")


def test_job_ends_failed_when_it_fails_five_times(project, declare_kind) -> None:
    def handler(job: Any, params: Params) -> Done:
        raise RuntimeError("poison")

    declare_kind("t-poison", handler, Params)
    job = services.submit("t-poison", project=project, params={})
    for _ in range(MAX_FAILURES):
        due(job)
        job = run(job)
    assert (job.state, job.attempt, job.error_code) == ("failed", MAX_FAILURES, "unexpected")


def test_job_waits_with_reason_when_a_dependency_is_away(project, declare_kind) -> None:
    def handler(job: Any, params: Params) -> Done:
        raise Unavailable("MLflow does not answer.")

    declare_kind("t-away", handler, Params)
    job = run(services.submit("t-away", project=project, params={}))
    assert (job.state, job.reason, job.failures) == ("queued", "Waiting: MLflow does not answer.", 0)


def test_job_comes_again_when_later(project, declare_kind) -> None:
    declare_kind("t-later", lambda job, params: Later(0, "not yet") if job.attempt < 3 else Done(), Params)
    job = services.submit("t-later", project=project, params={})
    states = []
    for _ in range(3):
        job = run(job)
        states.append((job.state, job.reason))
    assert states == [("queued", "not yet"), ("queued", "not yet"), ("succeeded", "")]


def test_sweep_requeues_when_lease_expired_and_ends_when_too_often(project, declare_kind) -> None:
    declare_kind("t-sweep", lambda job, params: Done(), Params)
    job = services.submit("t-sweep", project=project, params={})
    for round_number in range(1, MAX_FAILURES + 1):
        assert leases.claim(job.pk, "w") is not None
        expire(job)
        assert services.sweep() == 1
        job.refresh_from_db()
        assert job.failures == round_number
    assert (job.state, job.error_code) == ("failed", "poison")
    assert "5 times" in job.reason


def test_running_job_is_cancelled_when_asked(project, people, declare_kind) -> None:
    def handler(job: Any, params: Params) -> Done:
        services.job_cancel(actor=people["developer"], job=Job.objects.get(pk=job.id))
        assert job.stop.wait(10)
        raise Stopped(job.stop_reason)

    declare_kind("t-cancel", handler, Params)
    job = run(services.submit("t-cancel", project=project, params={}))
    assert job.state == "cancelled"
    with pytest.raises(Conflict):
        services.job_cancel(actor=people["developer"], job=job)
    assert services.job_retry(actor=people["developer"], job=job).state == "queued"


def test_job_goes_back_at_once_when_worker_shuts_down(project, declare_kind) -> None:
    def handler(job: Any, params: Params) -> Done:
        services.workers_release("")
        assert job.stop.wait(10)
        job.check()
        return Done()

    declare_kind("t-term", handler, Params)
    job = run(services.submit("t-term", project=project, params={}))
    assert (job.state, job.failures, job.reason) == ("queued", 0, "Its worker was shut down.")


def test_same_job_is_returned_when_key_is_repeated(project, declare_kind) -> None:
    declare_kind("t-key", lambda job, params: Done(), Params)
    first = services.submit("t-key", project=project, params={}, key="k")
    assert services.submit("t-key", project=project, params={}, key="k").pk == first.pk


def test_due_job_is_rung_once_a_while_when_messages_are_lost(project, declare_kind) -> None:
    declare_kind("t-ring", lambda job, params: Done(), Params)
    job = services.submit("t-ring", project=project, params={})
    assert [row[0] for row in leases.due_unrung()] == [job.pk]
    assert leases.due_unrung() == []


def test_due_jobs_are_rung_in_their_order_when_many_wait(project, declare_kind) -> None:
    declare_kind("t-order", lambda job, params: Done(), Params)
    jobs = [services.submit("t-order", project=project, params={}) for _ in range(12)]
    # A row that was touched lately lies elsewhere in the table.
    for job in jobs[::3]:
        Job.objects.filter(pk=job.pk).update(reason="touched")
    assert [row[0] for row in leases.due_unrung()] == [job.pk for job in jobs]


def test_constraint_refuses_running_job_when_it_has_no_lease(project) -> None:
    from django.db import IntegrityError

    with pytest.raises(IntegrityError):
        Job.objects.create(project=project, kind="x", queue="export", state=State.RUNNING)


def test_job_ends_cancelled_when_it_gives_itself_back_after_it_was_asked_to_stop(project, people, declare_kind) -> None:
    def handler(job: Any, params: Params) -> Later:
        # Asked in the moment before it gives itself back: no heartbeat has heard of it yet.
        Job.objects.filter(pk=job.id).update(cancel_requested=True)
        return Later(1, "again")

    declare_kind("t-cancel-later", handler, Params)
    job = run(services.submit("t-cancel-later", project=project, params={}))
    assert (job.state, job.reason) == ("cancelled", "Cancelled.")


def test_job_comes_again_and_fails_in_the_end_when_interrupted_from_outside(project, declare_kind) -> None:
    def handler(job: Any, params: Params) -> Done:
        raise Interrupted("The work crashed (SIGKILL).")

    declare_kind("t-interrupted", handler, Params)
    job = services.submit("t-interrupted", project=project, params={})
    for attempt in range(1, MAX_FAILURES):
        due(job)
        job = run(job)
        assert (job.state, job.failures, job.reason) == (
            "queued",
            attempt,
            "The work crashed (SIGKILL). Trying again.",
        )
    due(job)
    job = run(job)
    assert (job.state, job.error_code) == ("failed", "interrupted")
    assert "5 times" in job.reason


def test_effect_is_not_begun_when_the_lease_went_to_another_attempt(project, declare_kind) -> None:
    effects = []

    def frozen(job: Any, params: Params) -> Done:
        expire(Job.objects.get(pk=job.id))
        assert leases.claim(job.id, "other") is not None
        job.once("side", lambda: effects.append(1) or 1)
        return Done()

    declare_kind("t-frozen", frozen, Params)
    assert run(services.submit("t-frozen", project=project, params={})).attempt == 2
    assert effects == []


def test_heartbeat_goes_on_when_its_connection_was_cut(project, declare_kind) -> None:
    def handler(job: Any, params: Params) -> Done:
        before = Job.objects.get(pk=job.id).lease_until
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        time.sleep(2)
        return Done({"extended": Job.objects.get(pk=job.id).lease_until > before})

    declare_kind("t-cut", handler, Params)
    job = run(services.submit("t-cut", project=project, params={}))
    assert (job.state, job.result) == ("succeeded", {"extended": True})
