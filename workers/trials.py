"""Queue `optimize`: one trial of a search: made, judged, and measured beside the model it was made from."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from django.utils.translation import gettext_lazy as _
from pydantic import BaseModel

from engine.digests import file_digest
from engine.errors import EngineError
from engine.evaluate.tasks import hardware
from engine.optimize.lab.promise import quality_breach
from engine.optimize.lab.trial import Judgement
from engine.optimize.recipe import Recipe
from registry import searches, storage
from registry.search_models import Search, SearchTrial, TrialState
from slipway.jobs.context import JobContext
from slipway.jobs.kinds import Done, Later, job_kind
from workers.common import FETCH_LIMIT, artifact_file, file_stored, placed, scratch_folder
from workers.lab import JUDGING, ROUNDS, SEARCHES, cost_of, look_task, rows_of, seconds_left
from workers.runs import job_run
from workers.variants import (
    OPTIMIZE_LIMITS,
    VARIANTS_FOLDER,
    made_variant,
    measured_file,
    run_figures,
    subject_of,
    variant_kept,
    variant_record,
)

# So long may a variant still be made after the search's time is over.
_GRACE_S = 30.0
_ELSEWHERE_S = 10.0


class TrialParams(BaseModel):
    trial_id: int


@job_kind("trial", queue="optimize", params=TrialParams, label=_("Trial"), ended=searches.trial_job_ended)
def trial(job: JobContext, params: TrialParams) -> Done | Later:
    """Makes one variant, judges it, and measures it beside the model it was made from. What cannot be made, and what
    breaks the promise, is a finding too; neither leaves an artifact. A worker on another kind of machine than the
    search began on leaves it to others as long as there is time: figures of the two are not compared."""
    row = SearchTrial.objects.select_related("search").get(pk=params.trial_id)
    row.search = SEARCHES.get(pk=row.search_id)
    recipe = Recipe.model_validate(row.recipe)
    elsewhere = _elsewhere(row.search)
    if elsewhere and seconds_left(row.search) > 0:
        return Later(_ELSEWHERE_S, elsewhere)
    searches.trial_begin(trial=row)
    began = time.monotonic()
    if elsewhere:
        return _ended(row, TrialState.FAILED, began, reason=elsewhere)
    try:
        with scratch_folder(job) as scratch:
            return _tried(job, row, recipe, scratch, began)
    except EngineError as error:
        if error.code == "isolation":
            raise
        job.log(error.message, level="error")
        return _ended(row, TrialState.FAILED, began, reason=error.message)


def _ended(row: SearchTrial, state: TrialState, began: float, **more: Any) -> Done:
    seconds = round(time.monotonic() - began, 1)
    result = {"state": state.value, **({"reason": more["reason"]} if "reason" in more else {})}

    def commit() -> None:
        searches.trial_move(trial=row, state=state, seconds=seconds, **more)

    return Done(result, commit=commit)


def _tried(job: JobContext, row: SearchTrial, recipe: Recipe, scratch: Path, began: float) -> Done:
    search, goal = row.search, row.search.asked
    parent, version = search.artifact, search.artifact.version
    told = {**subject_of(parent, search.dataset.target), "seed": goal.seed}
    with job.step("fetch"):
        model = placed(artifact_file(parent), scratch / "model.onnx")
        rows = rows_of(search, scratch)
        judging = {name: rows.pop(name) for name in JUDGING if name in rows}
        judging["rows"] = judging.pop("evaluation")
    seconds = min(OPTIMIZE_LIMITS.seconds, max(0.0, seconds_left(search)) + _GRACE_S)
    variant = made_variant(
        job,
        recipe,
        params=told,
        inputs={"model": model, **rows},
        signature=parent.signature,
        scratch=scratch,
        limits=dataclasses.replace(OPTIMIZE_LIMITS, seconds=seconds),
        halfway=_Halfway(job, row),
    )
    job.progress(0.4, f"{recipe.label}: {parent.size} → {variant.size} bytes.")
    beside = {"model": variant.file, "reference": model, **judging}
    with job.step("judge"):
        value = dict(look_task(job, "engine.evaluate.tasks:judge", told, beside, scratch))
        confusion, metrics = value.pop("confusion", None) or {}, value.pop("metrics")
        judged = Judgement.model_validate(value)
        known = {"judged": judged.model_dump(mode="json"), "confusion": confusion, "size": variant.size}
        job.progress(0.6, f"{judged.metric} {judged.baseline:.2f} → {judged.value:.2f}.")
    loss = {"loss": judged.loss, "loss_upper": judged.loss_upper, "size_bytes": variant.size}
    if broken := quality_breach(goal, judged):
        run_id = job.once("run", lambda: job_run(job, version, f"trial {recipe.label}"))
        job.note_run(run_id)
        run_figures(run_id, parent, loss, refused=str(broken))
        return _ended(row, TrialState.REFUSED, began, reason=str(broken), **known)
    with job.step("measure"):
        asked = {**told, "rounds": ROUNDS, "threads": goal.threads, "batch": goal.batch, "quality": False}
        timed = {name: file for name, file in beside.items() if name not in JUDGING}
        measured = {
            **measured_file(job, params=asked, inputs=timed, scratch=scratch),
            "metrics": metrics.get("model", {}),
        }
        cost = cost_of(measured)
        job.progress(0.9, f"{cost.speedup:.2f} times the parent's speed.")
    with job.step("store"):
        run_id, uri = variant_kept(job, variant, version, f"trial {recipe.label}")
        run_figures(run_id, parent, {**measured, **loss}, sha256=variant.sha256, recipe=recipe.label)
    ended = _ended(row, TrialState.MEASURED, began, measured=cost.model_dump(mode="json"), **known)

    def commit() -> dict[str, Any]:
        artifact = variant_record(
            job, variant, parent=parent, dataset=search.dataset, run_id=run_id, uri=uri, measured=measured
        )
        SearchTrial.objects.filter(pk=row.pk).update(artifact=artifact)
        assert ended.commit is not None
        ended.commit()
        return {"artifact": artifact.pk}

    return Done({**ended.result, "speedup": cost.speedup}, commit=commit)


@dataclasses.dataclass(frozen=True, slots=True)
class _Halfway:
    """What trials of one search tuned, in MLflow for any worker to go on from."""

    job: JobContext
    trial: SearchTrial

    def find(self, key: str) -> Path | None:
        made = searches.halfway_find(search=self.trial.search, key=key)
        if made is None:
            return None
        return storage.fetch_file(made["uri"], sha256=made["sha256"], size_limit=FETCH_LIMIT)

    def keep(self, key: str, file: Path) -> None:
        sha256 = file_digest(file)
        version = self.trial.search.artifact.version
        run_id = self.job.once("run", lambda: job_run(self.job, version, f"trial {self.trial.label}"))
        uri = file_stored(self.job, file, sha256=sha256, run_id=run_id, folder=VARIANTS_FOLDER, name="model.onnx")
        searches.halfway_keep(trial=self.trial, key=key, sha256=sha256, uri=uri)


def _elsewhere(search: Search) -> str:
    """Why this machine is not the one to measure on, or ""."""
    here = hardware()
    if all(search.profile.get(name) == value for name, value in here.items()):
        return ""
    return (
        f"Waits for a worker on the kind of machine that its search began on ({search.profile.get('cpu')}, "
        f"{search.profile.get('cores')} cores); this one has {here['cpu']}, {here['cores']} cores."
    )
