"""A rollout's life, with the servers' reports fabricated and everything else real."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.utils import timezone

from deployments import rollouts, services
from deployments.models import ROLLOUT_TRANSITIONS, Decision, Deployment, Rollout
from slipway.api.problems import Conflict, Problem
from slipway.audit.models import Entry
from slipway.jobs.models import Job
from tests.api.tools import race
from tests.deployments.conftest import advance, passed, ready, started, traffic, weights

pytestmark = pytest.mark.django_db


def actions(rollout: Rollout) -> list[str]:
    return list(Decision.objects.filter(rollout=rollout).order_by("id").values_list("action", flat=True))


def step_done(rollout: Rollout, requests: int = 60) -> Rollout:
    """The step's time is over and its requests came, all well; the reconciler looks."""
    row = Rollout.objects.get(pk=rollout.pk)
    passed(row, 61)
    row.candidate.windows.all().delete()
    traffic(row.candidate, requests)
    return advance(row)


def test_rollout_promotes_step_by_step_when_all_is_well(rollout, endpoint) -> None:
    assert advance(rollout).step_started_at is None and weights(endpoint) == {1: 100, 2: 0}
    assert "No inference server" in advance(rollout).reason
    ready(rollout.stable, rollout.candidate)
    ready(rollout.stable, rollout.candidate, process=1, state="loading")
    assert "Server process 1 is loading it." in advance(rollout).reason and weights(endpoint) == {1: 100, 2: 0}
    ready(rollout.stable, process=1)
    assert "has not seen it" in advance(rollout).reason
    ready(rollout.stable, rollout.candidate, process=1)
    seen = []
    row = advance(rollout)
    for _ in range(3):
        seen.append((row.state, row.step, weights(endpoint)))
        assert advance(row).step == row.step  # too early
        row = step_done(row)
    assert seen == [
        ("progressing", 0, {1: 90, 2: 10}),
        ("progressing", 1, {1: 50, 2: 50}),
        ("baking", 2, {1: 0, 2: 100}),
    ]
    assert row.state == "promoted" and row.finished_at and weights(endpoint) == {1: 0, 2: 100}
    assert Deployment.objects.get(pk=rollout.stable_id).state == "warm"
    assert actions(rollout) == ["start", "step", "step", "step", "promote"]
    assert advance(row).state == "promoted" and len(actions(rollout)) == 5
    assert Entry.objects.filter(action="rollout.promote").count() == 1
    last = Decision.objects.filter(action="promote").get()
    assert last.data["evidence"]["candidate"]["requests"] == 60


def test_older_versions_retire_when_the_next_rollout_is_promoted(rollout, endpoint, artifacts) -> None:
    row = started(rollout)
    for _ in range(3):
        row = step_done(row)
    second = rollouts.rollout_start(actor=None, endpoint=endpoint, artifact=artifacts[2])
    ready(second.stable, second.candidate)
    row = advance(second)
    for _ in range(3):
        row = step_done(row)
    assert row.state == "promoted" and weights(endpoint) == {2: 0, 3: 100}
    assert Deployment.objects.get(pk=rollout.stable_id).state == "retired"
    with pytest.raises(Conflict):
        rollouts.rollout_roll_back(actor=None, rollout=rollout)


def test_step_holds_when_requests_are_too_few(rollout, endpoint) -> None:
    row = step_done(started(rollout), requests=49)
    assert (row.state, row.step) == ("progressing", 0) and weights(endpoint) == {1: 90, 2: 10}


def test_requests_of_before_do_not_count_when_step_begins(rollout) -> None:
    row = started(rollout)
    passed(row, 61)
    traffic(row.candidate, 1000, errors=1000, ago=120)
    row = advance(row)
    assert (row.state, row.evidence["candidate"]["requests"]) == ("progressing", 0)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_traffic_is_back_at_once_when_errors_burst(step: int, rollout, endpoint) -> None:
    row = started(rollout)
    for _ in range(step):
        row = step_done(row)
    passed(row, 10)
    row.candidate.windows.all().delete()
    traffic(row.candidate, 20, errors=2, ago=0)
    row = advance(row)
    assert row.state == "rolled-back" and weights(endpoint) == {1: 100}
    assert "Error burst: 2 of 20" in row.reason and row.finished_at
    assert Deployment.objects.get(pk=row.candidate_id).state == "retired"
    assert Decision.objects.filter(action="rollback").get().data["evidence"]["guards"][0]["verdict"] == "abort"


def test_nothing_happens_when_errors_are_few_or_of_the_stable_version(rollout, endpoint) -> None:
    row = started(rollout)
    passed(row, 10)
    traffic(row.candidate, 19, errors=19, ago=0)
    traffic(row.stable, 1000, errors=1000, ago=0)
    assert advance(row).state == "progressing"


@pytest.mark.parametrize("when", ["waiting", "running", "paused", "baking"])
def test_traffic_is_back_when_a_server_cannot_load_the_candidate(when: str, rollout, endpoint) -> None:
    row = rollout
    if when != "waiting":
        row = started(rollout)
    if when == "paused":
        Rollout.objects.filter(pk=row.pk).update(state="paused")
    if when == "baking":
        row = step_done(step_done(row))
        assert row.state == "baking"
    ready(row.stable, row.candidate, process=1, state="failed", reason="bad operator")
    row = advance(row)
    assert row.state == "rolled-back" and "bad operator" in row.reason and weights(endpoint) == {1: 100}


def test_failure_is_forgotten_when_its_server_is_gone(rollout) -> None:
    ready(rollout.candidate, process=1, state="failed", age=60)
    ready(rollout.stable, rollout.candidate)
    assert advance(rollout).state == "progressing"


def test_candidate_is_given_up_when_it_never_gets_ready(rollout, endpoint) -> None:
    ready(rollout.stable)
    Rollout.objects.filter(pk=rollout.pk).update(created_at=timezone.now() - dt.timedelta(seconds=119))
    assert advance(rollout).state == "progressing"
    Rollout.objects.filter(pk=rollout.pk).update(created_at=timezone.now() - dt.timedelta(seconds=121))
    row = advance(rollout)
    assert row.state == "rolled-back" and "not ready within 120 s" in row.reason and weights(endpoint) == {1: 100}


def test_rollout_holds_and_never_promotes_when_evidence_is_overdue(rollout, endpoint) -> None:
    row = started(rollout)
    passed(row, 3601)
    row = advance(row)
    assert row.state == "paused" and row.reason.startswith("Held: not enough evidence")
    for _ in range(3):
        passed(row, 100_000)
        row = advance(row)
    assert (row.state, row.step) == ("paused", 0) and weights(endpoint) == {1: 90, 2: 10}
    assert actions(rollout) == ["start", "step", "hold"]


def test_burst_returns_traffic_when_rollout_is_paused(rollout, endpoint) -> None:
    row = started(rollout)
    Rollout.objects.filter(pk=row.pk).update(state="paused")
    passed(row, 10)
    traffic(row.candidate, 100, errors=50, ago=0)
    assert advance(row).state == "rolled-back" and weights(endpoint) == {1: 100}


def test_rollout_waits_for_a_person_when_step_has_a_gate(endpoint, artifacts, people) -> None:
    rollout = rollouts.rollout_start(
        actor=people["operator"], endpoint=endpoint, artifact=artifacts[1],
        steps=[{"weight": 25, "min_seconds": 1, "gate": True}, {"mode": "full", "weight": 100}],
    )  # fmt: skip
    row = step_done(started(rollout))
    for _ in range(3):
        row = step_done(row)
    assert (row.state, row.reason) == ("paused", "Waiting for a person at this gate.")
    assert weights(endpoint) == {1: 75, 2: 25} and actions(row).count("gate") == 1
    for move in (rollouts.rollout_promote, rollouts.rollout_full):
        with pytest.raises(PermissionDenied):
            move(actor=people["operator"], rollout=row)
    row = rollouts.rollout_promote(actor=people["approver"], rollout=row)
    assert row.state == "baking" and weights(endpoint) == {1: 0, 2: 100}


# People


def test_people_pause_resume_promote_and_abort_when_they_may(rollout, endpoint, people) -> None:
    operator, row = people["operator"], started(rollout)
    row = rollouts.rollout_pause(actor=operator, rollout=row)
    assert step_done(row).state == "paused" and weights(endpoint) == {1: 90, 2: 10}
    row = rollouts.rollout_resume(actor=operator, rollout=row)
    assert row.state == "progressing" and (timezone.now() - row.step_started_at).total_seconds() < 5
    row = rollouts.rollout_promote(actor=operator, rollout=row)
    assert (row.step, weights(endpoint)) == (1, {1: 50, 2: 50})
    row = rollouts.rollout_abort(actor=operator, rollout=row)
    assert row.state == "aborted" and weights(endpoint) == {1: 100}
    assert actions(row) == ["start", "step", "pause", "resume", "step", "abort"]
    for attempt in (
        rollouts.rollout_pause, rollouts.rollout_resume, rollouts.rollout_promote, rollouts.rollout_full,
        rollouts.rollout_abort, rollouts.rollout_roll_back,
    ):  # fmt: skip
        with pytest.raises(Conflict):
            attempt(actor=operator, rollout=row)
    assert advance(row).state == "aborted"


def test_second_pause_is_refused_when_paused(rollout, people) -> None:
    row = rollouts.rollout_pause(actor=people["operator"], rollout=started(rollout))
    with pytest.raises(Conflict):
        rollouts.rollout_pause(actor=people["operator"], rollout=row)
    assert actions(row).count("pause") == 1


def test_candidate_gets_everything_when_a_person_says_full(rollout, endpoint, people) -> None:
    row = rollouts.rollout_full(actor=people["operator"], rollout=started(rollout))
    assert (row.state, row.step) == ("baking", 2) and weights(endpoint) == {1: 0, 2: 100}
    for attempt in (rollouts.rollout_promote, rollouts.rollout_full, rollouts.rollout_pause, rollouts.rollout_resume):
        with pytest.raises(Conflict):
            attempt(actor=people["operator"], rollout=row)
    row = rollouts.rollout_roll_back(actor=people["operator"], rollout=row)
    assert row.state == "rolled-back" and weights(endpoint) == {1: 100}


@pytest.mark.parametrize("change", ["rollout_promote", "rollout_full"])
def test_person_cannot_promote_when_candidate_is_not_ready(change: str, rollout, endpoint, people) -> None:
    for report in (lambda: None, lambda: ready(rollout.stable), lambda: ready(rollout.candidate, state="loading")):
        report()
        with pytest.raises(Conflict, match="not ready"):
            getattr(rollouts, change)(actor=people["operator"], rollout=rollout)
    assert weights(endpoint) == {1: 100, 2: 0}


def test_rollout_begins_when_a_person_promotes_it_first(rollout, endpoint, people) -> None:
    ready(rollout.stable, rollout.candidate)
    row = rollouts.rollout_promote(actor=people["operator"], rollout=rollout)
    assert row.step == 0 and weights(endpoint) == {1: 90, 2: 10}


def test_paused_rollout_stays_when_candidate_gets_ready(rollout, endpoint, people) -> None:
    rollouts.rollout_pause(actor=people["operator"], rollout=rollout)
    ready(rollout.stable, rollout.candidate)
    assert advance(rollout).state == "paused" and weights(endpoint) == {1: 100, 2: 0}
    row = rollouts.rollout_resume(actor=people["operator"], rollout=rollout)
    assert row.step_started_at is None
    assert advance(row).step_started_at and weights(endpoint) == {1: 90, 2: 10}


def test_old_version_is_back_when_rolled_back_after_promotion(rollout, endpoint, people) -> None:
    row = started(rollout)
    for _ in range(3):
        row = step_done(row)
    row = rollouts.rollout_roll_back(actor=people["operator"], rollout=row)
    assert row.state == "rolled-back" and weights(endpoint) == {1: 100}
    with pytest.raises(Conflict):
        rollouts.rollout_roll_back(actor=people["operator"], rollout=row)


def test_rolling_back_is_refused_when_a_later_rollout_came(rollout, endpoint, artifacts, people) -> None:
    row = started(rollout)
    for _ in range(3):
        row = step_done(row)
    rollouts.rollout_start(actor=None, endpoint=endpoint, artifact=artifacts[2])
    with pytest.raises(Conflict, match="later rollout"):
        rollouts.rollout_roll_back(actor=people["operator"], rollout=row)


def test_same_artifact_can_be_tried_again_when_it_was_rolled_back(rollout, endpoint, artifacts, people) -> None:
    rollouts.rollout_abort(actor=people["operator"], rollout=started(rollout))
    second = rollouts.rollout_start(actor=None, endpoint=endpoint, artifact=artifacts[1])
    assert second.candidate_id != rollout.candidate_id and weights(endpoint) == {1: 100, 2: 0}


@pytest.mark.parametrize("who", ["viewer", "developer", "approver", "stranger"])
def test_people_may_not_touch_a_rollout_when_role_is(who: str, rollout, people) -> None:
    row = started(rollout)
    for name in ("pause", "resume", "promote", "full", "abort", "roll_back"):
        with pytest.raises(PermissionDenied):
            getattr(rollouts, f"rollout_{name}")(actor=people[who], rollout=row)
    assert Rollout.objects.get().state == "progressing"


def test_stale_revision_is_412_when_given(rollout, people) -> None:
    row = started(rollout)
    for name in ("pause", "resume", "promote", "full", "abort", "roll_back"):
        with pytest.raises(Problem) as refused:
            getattr(rollouts, f"rollout_{name}")(actor=people["operator"], rollout=row, revision=row.revision - 1)
        assert refused.value.status == 412


def test_rollout_to_itself_is_refused_when_started(endpoint, artifacts, model) -> None:
    from registry import intake

    copied = intake.version_copy(actor=None, model=model, sha256=artifacts[0].sha256).artifacts.get()
    for artifact in (artifacts[0], copied):
        with pytest.raises(Problem, match="itself") as refused:
            rollouts.rollout_start(actor=None, endpoint=endpoint, artifact=artifact)
        assert refused.value.field == "artifact"
    assert not Rollout.objects.exists() and not Job.objects.exists()


def test_rollout_is_refused_when_endpoint_is_empty_or_another_is_under_way(
    rollout, endpoint, artifacts, project
) -> None:
    with pytest.raises(Conflict, match="under way"):
        rollouts.rollout_start(actor=None, endpoint=endpoint, artifact=artifacts[2])
    empty = services.endpoint_create(actor=None, project=project, name="empty")
    with pytest.raises(Conflict, match="serves nothing"):
        rollouts.rollout_start(actor=None, endpoint=empty, artifact=artifacts[2])


def test_artifact_with_traffic_is_refused_as_candidate_when_weights_are_split(endpoint, artifacts, people) -> None:
    other = services.candidate_add(actor=None, endpoint=endpoint, artifact=artifacts[1])
    stable = endpoint.deployments.get(weight=100)
    services.weights_change(
        actor=people["operator"], endpoint=endpoint, weights={str(stable.pk): 60, str(other.pk): 40}
    )
    with pytest.raises(Conflict, match="already has traffic"):
        rollouts.rollout_start(actor=None, endpoint=endpoint, artifact=artifacts[1])
    third = rollouts.rollout_start(actor=None, endpoint=endpoint, artifact=artifacts[2])
    assert third.stable_id == stable.pk
    ready(stable, other, third.candidate)
    advance(third)
    assert weights(endpoint) == {1: 90, 2: 0, 3: 10}


@pytest.mark.parametrize("old", ROLLOUT_TRANSITIONS)
@pytest.mark.parametrize("new", ROLLOUT_TRANSITIONS)
def test_rollout_moves_only_along_the_table_when_asked(old: str, new: str, rollout) -> None:
    Rollout.objects.update(state=old)
    row = Rollout.objects.get()
    if new == old or new in ROLLOUT_TRANSITIONS[old]:
        rollouts._move(row, new)
        assert row.state == new
    else:
        with pytest.raises(Conflict), transaction.atomic():
            rollouts._move(row, new)


# Away and at once


def test_rolling_back_works_when_redis_and_celery_are_away(rollout, endpoint, people, settings, monkeypatch) -> None:
    from slipway import events
    from slipway.celery import app

    monkeypatch.setattr(events, "_local", type("Local", (), {})())
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    monkeypatch.setattr(app.conf, "broker_url", "redis://127.0.0.1:1/0")
    row = started(rollout)
    row = rollouts.rollout_roll_back(actor=people["operator"], rollout=row)
    assert row.state == "rolled-back" and weights(endpoint) == {1: 100}


@pytest.mark.django_db(transaction=True)
def test_one_move_happens_when_eight_reconcilers_look_at_once(rollout, endpoint) -> None:
    ready(rollout.stable, rollout.candidate)
    assert not [one for one in race(8, lambda index: advance(rollout)) if isinstance(one, Exception)]
    assert actions(rollout) == ["start", "step"] and weights(endpoint) == {1: 90, 2: 10}
    row = Rollout.objects.get()
    passed(row, 61)
    traffic(row.candidate, 60)
    # All saw the same numbers of step 0: the second move would rest on evidence of the step before.
    row.refresh_from_db()
    counts = {row.candidate_id: rollouts.evidence.Counts(requests=60)}
    observed = rollouts.evidence.Observed(row.step_started_at, counts)
    done = race(8, lambda index: rollouts.rollout_advance(rollout_id=row.pk, observed=observed))
    assert not [one for one in done if isinstance(one, Exception)]
    assert actions(rollout) == ["start", "step", "step"] and weights(endpoint) == {1: 50, 2: 50}


@pytest.mark.django_db(transaction=True)
def test_one_person_wins_when_five_click_on_one_view(rollout, endpoint, people) -> None:
    row = started(rollout)
    revision, operator = row.revision, people["operator"]

    def work(index: int) -> Any:
        change = rollouts.rollout_abort if index % 2 else rollouts.rollout_promote
        return change(actor=operator, rollout=Rollout.objects.get(pk=row.pk), revision=revision)

    done = race(5, work)
    assert sum(isinstance(one, Rollout) for one in done) == 1
    assert {getattr(one, "status", 0) for one in done if not isinstance(one, Rollout)} <= {409, 412}
