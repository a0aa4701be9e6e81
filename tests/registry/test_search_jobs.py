"""A search from its request to its recommendation, killed, cancelled and fed with what it cannot use."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from registry.models import Artifact, Measurement, Model
from registry.search_models import Search, SearchTrial
from registry.searches import search_request
from slipway.api.problems import Problem
from slipway.jobs import services as jobs
from slipway.jobs.context import Interrupted
from slipway.jobs.models import Job, State
from tests.registry import lab
from workers import turns

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("use_mlflow")]
QUICK = {"trials": 3, "minutes": 5, "max_loss": 5}


@pytest.fixture
def base(model: Model) -> Artifact:
    return lab.artifact(model)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of measuring says as much here as five."""
    for module in ("lab", "trials"):
        monkeypatch.setattr(f"workers.{module}.ROUNDS", 1)


def searched(base: Artifact, **goal: Any) -> Search:
    return search_request(actor=None, artifact=base, goal={**QUICK, **goal})


@pytest.mark.usefixtures("quick")
def test_search_recommends_a_measured_variant_when_it_ends(base: Artifact) -> None:
    lab.dataset(base.version, lab.rows(400))
    search = searched(base)
    job = lab.finish(search)
    assert job.state == State.SUCCEEDED, job.reason
    trials = list(search.trials.all())
    assert len(trials) == 3 and {trial.state for trial in trials} <= {"measured", "refused", "failed"}
    measured = [trial for trial in trials if trial.state == "measured"]
    assert measured and search.found is not None and search.found.front
    for trial in measured:
        artifact, cost, quality = trial.artifact, trial.cost, trial.quality
        assert artifact is not None and cost is not None and quality is not None
        assert artifact.parent == base and artifact.recipe["steps"] == trial.steps and artifact.signed
        assert artifact.recipe["optimizer"] == "+".join(step["optimizer"] for step in trial.steps)
        assert artifact.size == cost.size_bytes == trial.size and cost.ratio_low <= cost.ratio <= cost.ratio_high
        assert quality.rows == 280 and trial.confusion["labels"]
        assert Measurement.objects.get(artifact=artifact, job=trial.job).speedup == pytest.approx(cost.speedup)
        assert trial.job is not None and trial.job.mlflow_run_id == artifact.mlflow_run_id
        # The variant was answered once, to be judged; these are its figures.
        metrics = Measurement.objects.get(artifact=artifact, job=trial.job).metrics
        assert metrics["accuracy"] == pytest.approx(quality.value / 100)
    assert search.parts["answers"]["rows"] == 280
    if job.result["recommended"]:
        assert job.result["recommended"] in {trial.artifact_id for trial in measured}
    # 30 % of each class calibrated, and was not judged on.
    assert search.parts["calibration"]["rows"] == 120 and search.parts["evaluation"]["rows"] == 280
    assert search.base is not None and search.profile["cores"] and search.survey["calibration"]
    assert Measurement.objects.filter(artifact=base, job=search.job).count() == 1


def test_second_measurement_waits_when_one_is_under_way_on_this_machine() -> None:
    order: list[str] = []
    begun = threading.Event()

    def first() -> None:
        with turns.measuring_alone(Quiet()):
            begun.set()
            time.sleep(0.5)
            order.append("first")
        connection.close()

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(10)
    with turns.measuring_alone(Quiet()):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


class Quiet:
    """A job that says nothing and is not stopped."""

    def log(self, text: str) -> None: ...

    def check(self) -> None: ...


@pytest.mark.usefixtures("quick")
def test_search_goes_on_from_its_rows_when_it_was_killed(base: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.dataset(base.version, lab.rows(400))
    search = searched(base, trials=2)
    lab.run(search.job)
    first, second = lab.children(search)
    lab.run(first)
    # Died right after it had submitted: the lease runs out, the next attempt finds the rows and submits nothing twice.
    Job.objects.filter(pk=search.job_id).update(
        state=State.RUNNING, lease_until=timezone.now() - dt.timedelta(seconds=9), claimed_by="gone"
    )
    with monkeypatch.context() as patch:
        patch.setattr("workers.trials.made_variant", _killed)
        assert lab.run(second).state == State.QUEUED  # its worker died too: another attempt
    assert SearchTrial.objects.get(job=second).state == "running"
    jobs.sweep()
    looked = search.trials.count()
    assert lab.finish(search).state == State.SUCCEEDED
    assert search.trials.count() == looked == 2 and Job.objects.filter(parent=search.job_id).count() == 2
    assert not search.trials.filter(state__in=["queued", "running"]).exists()


@pytest.mark.usefixtures("quick")
def test_trial_waits_for_the_search_s_machine_when_it_comes_to_another(base: Artifact) -> None:
    lab.dataset(base.version, lab.rows(400))
    search = searched(base, trials=2)
    lab.run(search.job)
    search.refresh_from_db()
    mine = search.profile
    Search.objects.filter(pk=search.pk).update(profile={**mine, "cpu": "Another CPU"})
    first, second = lab.children(search)
    waiting = lab.run(first)
    assert waiting.state == State.QUEUED and "Another CPU" in waiting.reason
    assert SearchTrial.objects.get(job=first).state == "queued"
    Search.objects.filter(pk=search.pk).update(profile=mine)
    assert lab.run(first).state == State.SUCCEEDED and SearchTrial.objects.get(job=first).state == "measured"
    # No such machine came in time.
    Search.objects.filter(pk=search.pk).update(
        profile={**mine, "cpu": "Another CPU"}, deadline=timezone.now() - dt.timedelta(seconds=1)
    )
    lab.run(second)
    late = SearchTrial.objects.get(job=second)
    assert late.state == "failed" and "Another CPU" in late.reason


def _killed(*args: Any, **more: Any) -> None:
    raise Interrupted("Ended by SIGKILL.")


@pytest.mark.usefixtures("quick")
def test_trials_end_when_their_search_is_cancelled_and_come_back_when_it_is_retried(base: Artifact) -> None:
    lab.dataset(base.version, lab.rows(400))
    search = searched(base, trials=2)
    lab.run(search.job)
    assert search.trials.filter(state="queued").count() == 2
    assert search.job is not None
    jobs.job_cancel(actor=None, job=search.job)
    search.refresh_from_db()
    assert search.stopped_at is not None
    assert set(search.trials.values_list("state", flat=True)) == {"cancelled"}
    assert not Job.objects.filter(parent=search.job_id, state__in=["queued", "running"]).exists()
    jobs.job_retry(actor=None, job=search.job)
    assert lab.finish(search).state == State.SUCCEEDED
    assert search.stopped_at is None and not search.trials.filter(state="cancelled").exists()
    assert search.trials.count() == 2


@pytest.mark.usefixtures("quick")
def test_no_artifact_is_left_when_a_trial_breaks_the_promise_or_cannot_be_made(
    base: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.dataset(base.version, lab.rows(400))
    monkeypatch.setattr("workers.trials.quality_breach", lambda goal, judged: "It loses too much.")
    search = searched(base, trials=2)
    assert lab.finish(search).state == State.SUCCEEDED
    refused = list(search.trials.filter(state="refused"))
    assert refused and all(trial.quality and trial.confusion and trial.size for trial in refused)
    assert all(not trial.measured and trial.artifact is None for trial in refused)
    assert list(Artifact.objects.all()) == [base]
    assert search.found is not None and search.found.recommended is None and search.found.relax


def test_trials_that_did_not_begin_are_called_off_when_the_time_is_over(base: Artifact) -> None:
    lab.dataset(base.version, lab.rows(400))
    search = searched(base)
    lab.run(search.job)
    Search.objects.filter(pk=search.pk).update(deadline=timezone.now())
    assert lab.run(search.job).state == State.SUCCEEDED
    assert set(search.trials.values_list("state", flat=True)) == {"cancelled"}
    assert all("time was over" in text for text in search.trials.values_list("reason", flat=True))


@pytest.mark.usefixtures("quick")
def test_trial_answers_for_the_parent_when_its_kept_answers_are_missing(base: Artifact) -> None:
    lab.dataset(base.version, lab.rows(400))
    search = searched(base, trials=1)
    lab.run(search.job)
    search.refresh_from_db()
    Search.objects.filter(pk=search.pk).update(
        parts={name: part for name, part in search.parts.items() if name != "answers"}
    )
    assert lab.finish(search).state == State.SUCCEEDED
    assert [trial.state for trial in search.trials.all()] == ["measured"]


SITES = ["north" if index % 4 else "south" for index in range(400)]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("teaching", [False, True], ids=["split", "own calibration"])
def test_groups_are_judged_and_their_column_never_reaches_the_model(base: Artifact, teaching: bool) -> None:
    ages = [index % 80 for index in range(400)]
    lab.dataset(base.version, lab.table(400, site=SITES, age=ages), kind="csv")
    rows = lab.dataset(base.version, lab.table(100, 2, site=SITES[:100]), "training", "csv") if teaching else None
    goal = {**QUICK, "trials": 2, "slices": ["site", "age"]}
    search = search_request(actor=None, artifact=base, goal=goal, calibration=rows)
    assert lab.finish(search).state == State.SUCCEEDED
    judged = [trial.quality for trial in search.trials.all() if trial.quality]
    assert judged
    for quality in judged:
        sites = {one.name: one.rows for one in quality.slices if one.column == "site"}
        assert sites.keys() == {"north", "south"} and sum(sites.values()) == quality.rows == (400 if teaching else 280)
        assert len([one for one in quality.slices if one.column == "age"]) == 4
        assert quality.slices[0].column == "" and quality.baseline == 100
    assert search.parts["fed"].keys() == {"groups", "evaluation", "calibration"}


@pytest.mark.parametrize(
    ("column", "words"), [("nowhere", "no column"), ("note", "more than 50"), ("target", "is the target")]
)
def test_search_is_refused_at_the_field_when_a_group_cannot_be_guarded(base: Artifact, column: str, words: str) -> None:
    notes = [f"note {index}" for index in range(400)]
    lab.dataset(base.version, lab.table(400, note=notes), kind="csv")
    with pytest.raises(Problem, match=words) as refused:
        searched(base, slices=[column])
    assert refused.value.field == "goal.slices" and not Search.objects.exists()


def test_search_ends_with_its_cause_when_a_column_is_missing_in_rows_that_only_the_sandbox_reads(
    base: Artifact,
) -> None:
    lab.dataset(base.version, lab.rows(400))
    job = lab.finish(searched(base, slices=["site"]))
    assert job.state == State.FAILED and "no column “site”" in job.reason


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lab.rows(100, columns=3), "column"),
        (lab.rows(100, truth=False), "target column"),
        (lab.rows(12), "too few"),
    ],
    ids=["shape", "labels", "few"],
)
def test_search_fails_with_its_cause_when_the_rows_are_of_no_use(base: Artifact, rows: bytes, words: str) -> None:
    lab.dataset(base.version, rows)
    search = searched(base)
    job = lab.finish(search)
    assert job.state == State.FAILED and words in job.reason.lower(), job.reason
    assert not search.trials.exists() and list(Artifact.objects.all()) == [base]
