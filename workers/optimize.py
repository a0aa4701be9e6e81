"""Queue `optimize`: one variant made by hand, and measuring artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.utils.translation import gettext_lazy as _
from pydantic import BaseModel

from engine.optimize.recipe import Recipe
from registry import results
from registry.models import Artifact, Dataset, DatasetRole
from slipway.jobs.context import JobContext
from slipway.jobs.kinds import Done, job_kind
from workers.common import artifact_file, dataset_file, evaluation_rows, placed, scratch_folder
from workers.runs import job_run
from workers.variants import (
    made_variant,
    measured_file,
    parted,
    run_figures,
    subject_of,
    variant_kept,
    variant_record,
)


class MeasureParams(BaseModel):
    artifact_id: int
    rounds: int = 5


@job_kind("measure", queue="optimize", params=MeasureParams, label=_("Measure"))
def measure(job: JobContext, params: MeasureParams) -> Done:
    """Quality, latency and memory of one ONNX artifact on its evaluation rows."""
    artifact = Artifact.objects.select_related("version__model__project").get(pk=params.artifact_id)
    with scratch_folder(job) as scratch:
        with job.step("fetch"):
            inputs = {"model": placed(artifact_file(artifact), scratch / "model.onnx")}
            dataset, rows = evaluation_rows(artifact.version)
            if dataset and rows:
                inputs["rows"] = placed(rows, scratch / dataset.file_name)
        with job.step("measure"):
            told = {**subject_of(artifact, _target(dataset)), "rounds": params.rounds}
            measured = measured_file(job, params=told, inputs=inputs, scratch=scratch)
            job.progress(0.8, _words(artifact.label, measured))
        with job.step("register"):
            run_id = job.once("run", lambda: job_run(job, artifact.version, f"measure {artifact.label}"))
            job.note_run(run_id)
            run_figures(run_id, artifact, measured)

    def commit() -> dict[str, Any]:
        row = results.measurement_record(
            artifact=artifact, dataset=dataset, job_id=job.id, run_id=run_id, measured=measured
        )
        return {"measurement": row.pk}

    return Done({"latency_ms": measured["latency_ms"], "metrics": measured["metrics"]}, commit=commit)


class OptimizeParams(BaseModel):
    artifact_id: int
    optimizer: str
    options: dict[str, Any] = {}
    rounds: int = 5


@job_kind("optimize", queue="optimize", params=OptimizeParams, label=_("Optimize"))
def optimize(job: JobContext, params: OptimizeParams) -> Done:
    """Makes a variant, then measures it and its parent in alternating rounds on the same rows."""
    parent = Artifact.objects.select_related("version__model__project").get(pk=params.artifact_id)
    recipe = Recipe.of((params.optimizer, params.options)).checked()
    with scratch_folder(job) as scratch:
        with job.step("fetch"):
            model = placed(artifact_file(parent), scratch / "parent.onnx")
            dataset, rows = evaluation_rows(parent.version)
            told = subject_of(parent, _target(dataset))
            lessons = _lessons(job, recipe, parent, dataset, rows, scratch)
            judging = lessons.pop("evaluation", None)
            job.progress(0.1)
        variant = made_variant(
            job,
            recipe,
            params={**told, "seed": 0},
            inputs={"model": model, **lessons},
            signature=parent.signature,
            scratch=scratch,
        )
        job.progress(0.3, f"{recipe.label}: {parent.size} → {variant.size} bytes.")
        with job.step("measure"):
            beside = {"model": variant.file, "reference": model, **({"rows": judging} if judging else {})}
            measured = measured_file(job, params={**told, "rounds": params.rounds}, inputs=beside, scratch=scratch)
            faster = 1 / measured["ratio_to_reference"]
            job.progress(0.8, _words(recipe.label, measured) + f" {faster:.2f} times the parent's speed.")
        with job.step("store"):
            run_id, uri = variant_kept(job, variant, parent.version, f"optimize {params.optimizer}")
        with job.step("register"):
            run_figures(run_id, parent, measured, optimizer=params.optimizer, sha256=variant.sha256)

    def commit() -> dict[str, Any]:
        artifact = variant_record(
            job, variant, parent=parent, dataset=dataset, run_id=run_id, uri=uri, measured=measured
        )
        reference = {**measured["reference"], "profile": measured["profile"], "speedup": 1.0}
        results.measurement_record(artifact=parent, dataset=dataset, job_id=job.id, run_id=run_id, measured=reference)
        return {"artifact": artifact.pk}

    return Done({"sha256": variant.sha256, "size": variant.size, "speedup": faster}, commit=commit)


def _lessons(
    job: JobContext, recipe: Recipe, parent: Artifact, dataset: Dataset | None, rows: Path | None, scratch: Path
) -> dict[str, Path]:
    """ "evaluation" rows where there are any, and what the recipe learns from: the version's training rows, or else a
    part of the evaluation set, which is then not judged on."""
    found: dict[str, Path] = {}
    if dataset is None or rows is None:
        return found
    found["evaluation"] = placed(rows, scratch / dataset.file_name)
    training = parent.version.datasets.filter(role=DatasetRole.TRAINING, target=dataset.target).first()
    if recipe.needs and training is not None:
        found["training"] = placed(dataset_file(training), scratch / f"training-{training.file_name}")
    elif "calibration" in recipe.needs:
        parts = parted(job, found["evaluation"], dataset.target, 0, scratch)
        found |= {name: file for name, (file, _) in parts.items()}
    return found


def _target(dataset: Dataset | None) -> str:
    return dataset.target if dataset else "target"


def _words(label: str, measured: dict[str, Any]) -> str:
    quality = ", ".join(f"{name} {value:.4f}" for name, value in sorted(measured["metrics"].items()))
    latency = measured["latency_ms"]
    return f"{label}: p50 {latency['p50']:.3f} ms, p95 {latency['p95']:.3f} ms" + (f", {quality}." if quality else ".")
