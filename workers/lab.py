"""Queue `optimize`: the search for the best variant; each of its trials is a job of its own (`workers.trials`).

A search holds no state but its rows: it looks once, then comes again whenever a trial has ended, asks the engine what
to try next, and leaves. Killed anywhere, it goes on from what is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from pydantic import BaseModel

from engine.digests import file_digest
from engine.errors import EngineError
from engine.optimize.base import optimizers
from engine.optimize.lab.plan import next_recipes
from engine.optimize.lab.trial import Measured, Survey
from engine.sandbox import Limits
from registry import results, searches, storage
from registry.packages import kit_plan
from registry.search_models import TRIAL_LIVE, Search
from slipway.environment import environment
from slipway.jobs.context import JobContext
from slipway.jobs.kinds import Done, Later, job_kind
from workers.common import FETCH_LIMIT, artifact_file, dataset_file, file_stored, placed, sandboxed, scratch_folder
from workers.environments import prepared
from workers.runs import job_run
from workers.variants import (
    grouped,
    measured_file,
    parted,
    run_figures,
    subject_of,
)

LOOK_LIMITS = Limits(seconds=300, memory_mb=6144)
# A trial's end wakes its search; this is only for an end that came while the search was looking.
LOOK_S = 5.0
ROUNDS = 5
# What quality is judged on; nothing is made from it.
JUDGING = ("evaluation", "groups", "answers")
SEARCHES = Search.objects.select_related(
    "artifact__version__model__project", "dataset", "calibration", "training", "job", "created_by"
)


class SearchParams(BaseModel):
    search_id: int


@job_kind("search", queue="optimize", params=SearchParams, label=_("Search"), ended=searches.search_job_ended)
def search(job: JobContext, params: SearchParams) -> Done | Later:
    """Looks at the model once, then keeps trials going until nothing is left to try or the budget is spent."""
    row = SEARCHES.get(pk=params.search_id)
    if not row.baseline:
        _look(job, row)
    row.deadline = searches.search_begin(search=row).deadline
    ended = list(row.trials.exclude(state__in=TRIAL_LIVE))
    live = row.trials.filter(state__in=TRIAL_LIVE).count()
    left = seconds_left(row)
    if left <= 0:
        live -= searches.trials_call_off(search=row)
    room = min(environment.search_trials, row.asked.trials - len(ended)) - live
    if room > 0 and left > 0:
        survey = Survey.model_validate(row.survey)
        proposals = next_recipes(row.asked, survey, [trial.as_trial() for trial in ended], left)
        known = set(row.trials.values_list("key", flat=True))
        fresh = [each for each in proposals if each.recipe.key not in known]
        live += len(searches.trials_submit(search=row, proposals=fresh[:room]))
    if live > 0:
        job.progress(_share(row, len(ended), left))
        return Later(LOOK_S, f"{len(ended)} tried, {live} under way.")
    job.log(f"{len(ended)} variants were tried.")
    return Done(commit=lambda: searches.search_conclude(search=row))


def seconds_left(row: Search) -> float:
    return (row.deadline - timezone.now()).total_seconds() if row.deadline else 0.0


def _share(row: Search, ended: int, left: float) -> float:
    goal = row.asked
    return min(0.99, max(ended / goal.trials, 1 - left / (60 * goal.minutes)))


def _look(job: JobContext, row: Search) -> None:
    """What there is to optimize, which rows teach and which judge, and what the model costs as it is."""
    artifact, goal = row.artifact, row.asked
    with scratch_folder(job) as scratch:
        with job.step("fetch"):
            model = placed(artifact_file(artifact), scratch / "model.onnx")
            run_id = job.once("run", lambda: job_run(job, artifact.version, f"search {artifact.label}"))
            job.note_run(run_id)
            if row.calibration is None and row.training is None:
                searches.search_describe(search=row, parts=_parts(job, row, run_id, scratch))
            if goal.slices and "fed" not in row.parts:
                fed = _fed(job, row, run_id, scratch)
                searches.search_describe(search=row, parts={**row.parts, "fed": fed})
            rows = rows_of(row, scratch)
        with job.step("survey"):
            survey = look_task(job, "engine.optimize.tasks:survey", {}, {"model": model}, scratch)
        told = subject_of(artifact, row.dataset.target)
        with job.step("baseline"):
            asked = {**told, "rounds": ROUNDS, "threads": goal.threads, "batch": goal.batch}
            inputs = {"model": model, "rows": rows["evaluation"]}
            answers = scratch / "answers.npz"
            measured = measured_file(job, params=asked, inputs=inputs, scratch=scratch, answers=answers)
            if answers.exists():
                kept = _stored(job, {"answers": (answers, measured["rows"])}, run_id)
                searches.search_describe(search=row, parts={**row.parts, **kept})
            results.measurement_record(
                artifact=artifact, dataset=row.dataset, job_id=job.id, run_id=run_id,
                measured={**measured, "speedup": 1.0},
            )  # fmt: skip
        _kits(job, row)
        with job.step("sensitivity"):
            sensitivity = _sensitivity(job, {**told, "seed": goal.seed}, {**rows, "model": model}, scratch)
        run_figures(run_id, artifact, measured, goal=str(row.goal)[:500])
    more = {"calibration": True, "training": row.training is not None, "rows": measured["rows"]}
    searches.search_describe(
        search=row,
        survey=Survey.model_validate({**survey, **more}).model_dump(mode="json"),
        baseline=cost_of(measured).model_dump(mode="json"),
        profile=measured["profile"],
        sensitivity=sensitivity,
    )


def _kits(job: JobContext, row: Search) -> None:
    """Installs what its recipes may need before the clock starts: the first time that takes minutes."""
    known = {"calibration", *(["training"] if row.training else [])}
    for name in sorted({one.environment or "" for one in optimizers().values() if one.needs <= known} - {""}):
        try:
            with prepared(job, kit_plan(name)):
                pass
        except EngineError as error:
            job.log(f"What needs the environment {name} will not be made: {error.message}", level="warning")


def look_task(
    job: JobContext, task: str, params: dict[str, Any], inputs: dict[str, Path], scratch: Path
) -> dict[str, Any]:
    return sandboxed(job, task, params=params, inputs=inputs, scratch=scratch, limits=LOOK_LIMITS).value


def _sensitivity(job: JobContext, params: dict[str, Any], inputs: dict[str, Path], scratch: Path) -> list[Any]:
    """Each layer's share in what is lost; a model for which that cannot be told is searched all the same."""
    given = {name: file for name, file in inputs.items() if name not in JUDGING}
    try:
        return list(look_task(job, "engine.optimize.tasks:sensitivity", params, given, scratch)["layers"])
    except EngineError as error:
        job.log(f"Which layers mind is not known: {error.message}", level="warning")
        return []


def _parts(job: JobContext, row: Search, run_id: str, scratch: Path) -> dict[str, Any]:
    """The evaluation set in two: what calibrates is not judged on. Both are kept, for the trials to fetch."""
    whole = placed(dataset_file(row.dataset), scratch / row.dataset.file_name)
    parts = parted(job, whole, row.dataset.target, row.seed, scratch, row.asked.slices)
    return {"seed": row.seed, **_stored(job, parts, run_id)}


def _fed(job: JobContext, row: Search, run_id: str, scratch: Path) -> dict[str, Any]:
    """Which group each evaluation row is of, and the rows without the columns that say only that."""
    asked = {"slices": row.asked.slices, "signature": row.artifact.signature, "target": row.dataset.target}
    return _stored(job, grouped(job, rows_of(row, scratch), asked, scratch), run_id)


def _stored(job: JobContext, parts: dict[str, tuple[Path, int]], run_id: str) -> dict[str, Any]:
    """Files with their lengths, kept in MLflow, as `Search.parts` tells of them."""
    found = {}
    for name, (file, count) in parts.items():
        sha256 = file_digest(file)
        uri = file_stored(job, file, sha256=sha256, run_id=run_id, folder="search", name=file.name)
        found[name] = {"sha256": sha256, "uri": uri, "file_name": file.name, "rows": count}
    return found


def rows_of(row: Search, scratch: Path) -> dict[str, Path]:
    """{"evaluation", and "calibration" or "training" or both, and "groups" where a goal names slices, and "answers"
    of the parent once they are known} as files under their names. What a model is fed with has no columns that are no
    inputs of it."""
    named = {"evaluation": row.dataset, "calibration": row.calibration, "training": row.training}
    named |= {"groups": None, "answers": None}
    parts, found = {**row.parts, **row.parts.get("fed", {})}, {}
    for name, dataset in named.items():
        part = parts.get(name)
        if part is not None:
            file = storage.fetch_file(part["uri"], sha256=part["sha256"], size_limit=FETCH_LIMIT)
            found[name] = placed(file, scratch / f"{name}-{part['file_name']}")
        elif dataset is not None:
            found[name] = placed(dataset_file(dataset), scratch / f"{name}-{dataset.file_name}")
    return found


def cost_of(measured: dict[str, Any]) -> Measured:
    """The engine's word for what `measure` found."""
    latency, ratio = measured["latency_ms"], measured.get("ratio_to_reference", 1.0)
    return Measured(
        p50_ms=latency["p50"],
        p95_ms=latency["p95"],
        p99_ms=latency["p99"],
        ratio=ratio,
        ratio_low=measured.get("ratio_low", ratio),
        ratio_high=measured.get("ratio_high", ratio),
        throughput=measured["throughput"],
        size_bytes=measured["size_bytes"],
        peak_memory_mb=measured["peak_memory_mb"],
        profile=measured["profile"],
    )
