"""Writes to searches and their trials. The jobs that do the work call these; what is next is the engine's to say."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from engine.optimize.lab.conclude import conclude
from engine.optimize.lab.goal import Goal
from engine.optimize.lab.state import Proposal
from engine.optimize.lab.trial import Measured
from registry.models import Artifact, Dataset, DatasetRole, Format, Verdict, VersionState
from registry.search_models import TRIAL_LIVE, TRIAL_TRANSITIONS, Search, SearchTrial, TrialState
from registry.selectors import evaluation_set
from registry.slices import slices_check
from slipway import events
from slipway.accounts import policy
from slipway.accounts.models import User
from slipway.api.problems import Conflict, Problem, validated
from slipway.jobs.models import LIVE, Job, State
from slipway.jobs.services import job_cancel, job_wake, submit


def goal_of(given: dict[str, Any]) -> Goal:
    """A goal from plain data. Problem naming the first wrong field as `goal.<field>`."""
    return validated(Goal, given, "goal")


def search_request(
    *,
    actor: User | None,
    artifact: Artifact,
    goal: dict[str, Any],
    dataset: Dataset | None = None,
    calibration: Dataset | None = None,
    training: Dataset | None = None,
) -> Search:
    """A job that looks for the best variant of an ONNX artifact; without a data set, on the version's newest one."""
    version = artifact.version
    policy.require(actor, policy.WRITE, version.model.project_id)
    if artifact.format != Format.ONNX:
        raise Problem("Only an ONNX artifact can be optimized.", field="artifact")
    if artifact.verdict == Verdict.REJECTED or version.state != VersionState.READY:
        raise Conflict("This artifact was rejected, or its version is not ready.")
    asked = goal_of(goal)
    dataset = dataset or evaluation_set(version)
    if dataset is None:
        raise Problem(
            "There is no evaluation set to judge variants on. Log one with the training run, or name one.",
            field="dataset",
        )
    _check_rows(artifact, dataset, calibration, training)
    slices_check(dataset, asked.slices)
    with transaction.atomic():
        search = Search.objects.create(
            artifact=artifact,
            dataset=dataset,
            calibration=calibration,
            training=training,
            goal=asked.model_dump(mode="json"),
            created_by=actor,
        )
        search.job = submit(
            "search",
            project=version.model.project,
            params={"search_id": search.pk},
            actor=actor,
            subject=f"{version} · {artifact.label}",
        )
        search.save(update_fields=["job"])
    return search


def _check_rows(artifact: Artifact, dataset: Dataset, calibration: Dataset | None, training: Dataset | None) -> None:
    """Rows that quality is judged on teach nothing, and all name the truth alike."""
    project = artifact.version.model.project_id
    if dataset.role != DatasetRole.EVALUATION:
        raise Problem("Quality is judged on an evaluation set.", field="dataset")
    for field, rows in (("dataset", dataset), ("calibration", calibration), ("training", training)):
        if rows is None:
            continue
        if rows.project_id != project:
            raise Problem("This data set belongs to another project.", field=field)
        if rows.target != dataset.target:
            raise Problem(f"Its target column is “{rows.target}”, not “{dataset.target}”.", field=field)
        if field != "dataset" and rows.sha256 == dataset.sha256:
            raise Problem("Rows that quality is judged on may not teach.", field=field)


def search_begin(*, search: Search) -> Search:
    """Starts the clock once. After a cancel or a failure it goes on from where it stood, and what was
    cancelled then is tried again."""
    with transaction.atomic():
        row = Search.objects.select_for_update(no_key=True, of=("self",)).get(pk=search.pk)
        if row.deadline is None:
            row.deadline = timezone.now() + dt.timedelta(minutes=row.asked.minutes)
        elif row.stopped_at is not None:
            row.deadline += timezone.now() - row.stopped_at
        if row.stopped_at is not None:
            row.stopped_at = None
            for trial in row.trials.filter(state=TrialState.CANCELLED):
                _trial_submit(row, trial)
        row.save(update_fields=["deadline", "stopped_at"])
    return row


def search_describe(*, search: Search, **known: Any) -> None:
    """Fills in what a first look found: parts, survey, baseline, profile, sensitivity."""
    if unknown := set(known) - {"parts", "survey", "baseline", "profile", "sensitivity"}:
        raise ValueError(f"a search has no {sorted(unknown)[0]} to describe")
    Search.objects.filter(pk=search.pk).update(**known)
    for name, value in known.items():
        setattr(search, name, value)
    _ring(search)


@transaction.atomic
def trials_submit(*, search: Search, proposals: list[Proposal]) -> list[SearchTrial]:
    """One child job for each recipe that was not tried yet; a repeated call submits nothing twice."""
    made = []
    for proposal in proposals:
        recipe = proposal.recipe.checked()
        trial, created = SearchTrial.objects.get_or_create(
            search=search,
            key=recipe.key,
            defaults={
                "recipe": recipe.model_dump(mode="json"),
                "label": recipe.label[:500],
                "why": proposal.why.model_dump_json(),
            },
        )
        if created:
            _trial_submit(search, trial)
            made.append(trial)
    return made


def _trial_submit(search: Search, trial: SearchTrial) -> None:
    job = submit(
        "trial",
        project=search.artifact.version.model.project,
        params={"trial_id": trial.pk},
        actor=search.created_by,
        subject=f"{search.artifact.version} · {trial.label}",
        parent=search.job,
    )
    SearchTrial.objects.filter(pk=trial.pk).update(job=job, state=TrialState.QUEUED, reason="")
    _ring(search)


def trial_move(*, trial: SearchTrial, state: str, **more: Any) -> bool:
    """Compare-and-set of the state along the transition table; False when it is already elsewhere."""
    sources = [source for source, targets in TRIAL_TRANSITIONS.items() if state in targets]
    changed = SearchTrial.objects.filter(pk=trial.pk, state__in=sources).update(state=state, **more)
    if changed:
        _ring(trial.search)
    return changed == 1


def trial_begin(*, trial: SearchTrial) -> None:
    """An attempt begins. Conflict when the search no longer waits for it."""
    job = trial.search.job
    if job is None or job.state not in LIVE or job.cancel_requested:
        raise Conflict("Its search has ended.")
    if not trial_move(trial=trial, state=TrialState.RUNNING, reason=""):
        raise Conflict("This recipe has been tried already.")


def trial_job_ended(job: Job) -> None:
    """A trial's job ended without a word of its own: so did the trial. The search looks at it at once."""
    trial = SearchTrial.objects.select_related("search__artifact__version__model").filter(job=job).first()
    if trial is None:
        return
    if trial.state in TRIAL_LIVE and job.state != State.SUCCEEDED:
        cancelled = job.state == State.CANCELLED
        trial_move(
            trial=trial, state=TrialState.CANCELLED if cancelled else TrialState.FAILED, reason=job.reason or "Failed."
        )
    if trial.search.job_id is not None:
        job_wake(job_id=trial.search.job_id)


def search_job_ended(job: Job) -> None:
    """A search that was cancelled or has failed waits for nobody: its trials end with it."""
    if job.state == State.SUCCEEDED:
        return
    Search.objects.filter(job=job).update(stopped_at=Now())
    for child in Job.objects.filter(parent=job, kind="trial", state__in=LIVE, cancel_requested=False):
        job_cancel(actor=None, job=child)


def trials_call_off(*, search: Search) -> int:
    """The time is over: what did not begin does not begin."""
    jobs = Job.objects.filter(parent=search.job_id, kind="trial", state=State.QUEUED, attempt=0)
    rows = list(jobs)
    for job in rows:
        job_cancel(actor=None, job=job)
        SearchTrial.objects.filter(job=job).update(reason="The time was over before it began.")
    return len(rows)


def halfway_keep(*, trial: SearchTrial, key: str, sha256: str, uri: str) -> None:
    """Remembers a model on the way to a trial's variant; another attempt at it may take its place."""
    trial.halfway = {**trial.halfway, key: {"sha256": sha256, "uri": uri}}
    SearchTrial.objects.filter(pk=trial.pk).update(halfway=trial.halfway)


def halfway_find(*, search: Search, key: str) -> dict[str, str] | None:
    """{"sha256", "uri"} of the model that a trial of this search had after the steps with this key."""
    found = search.trials.filter(halfway__has_key=key).values_list("halfway", flat=True).first()
    return dict(found[key]) if found is not None else None


def search_conclude(*, search: Search) -> dict[str, Any]:
    """Stores what came of it; {"search", "recommended": id of the artifact or None, "front"}."""
    trials = list(search.trials.exclude(state__in=TRIAL_LIVE))
    found = conclude(search.asked, Measured.model_validate(search.baseline), [trial.as_trial() for trial in trials])
    Search.objects.filter(pk=search.pk).update(conclusion=found.model_dump(mode="json"))
    best = next((trial for trial in trials if trial.key == found.recommended), None)
    _ring(search)
    return {
        "search": search.pk,
        "recommended": best.artifact_id if best else None,
        "label": best.label if best else "",
        "front": len(found.front),
    }


def _ring(search: Search) -> None:
    events.ring(search.artifact.version.model.project_id, "search", search.pk)
