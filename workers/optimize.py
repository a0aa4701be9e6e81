"""Queue `optimize`: making variants, and measuring artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.utils.translation import gettext_lazy as _
from pydantic import BaseModel

from engine.optimize.base import optimizer
from engine.sandbox import Limits
from registry import results, storage
from registry.mlflow import gateway
from registry.models import Artifact, Dataset, Format, Verdict
from slipway.jobs.context import JobContext
from slipway.jobs.kinds import Done, job_kind
from workers.common import (
    artifact_file,
    evaluation_rows,
    file_digest,
    made_file,
    onnx_facts,
    placed,
    sandboxed,
    scratch_folder,
)
from workers.runs import job_run, numbers

OPTIMIZE_LIMITS = Limits(seconds=900, memory_mb=6144)
MEASURE_LIMITS = Limits(seconds=600, memory_mb=6144)


class MeasureParams(BaseModel):
    artifact_id: int
    rounds: int = 5


@job_kind("measure", queue="optimize", params=MeasureParams, label=_("Measure"))
def measure(job: JobContext, params: MeasureParams) -> Done:
    """Quality, latency and memory of one ONNX artifact on its evaluation rows."""
    artifact = Artifact.objects.select_related("version__model__project").get(pk=params.artifact_id)
    with scratch_folder(job) as scratch:
        with job.step("fetch"):
            model = placed(artifact_file(artifact), scratch / "model.onnx")
            dataset, rows = evaluation_rows(artifact.version)
            inputs = _inputs(model, dataset, rows, scratch)
        with job.step("measure"):
            measured = _measure(job, artifact, dataset, inputs, params.rounds, scratch)
            job.progress(0.8, _words(artifact.label, measured))
        with job.step("register"):
            run_id = job.once("run", lambda: job_run(job, artifact.version, f"measure {artifact.label}"))
            job.note_run(run_id)
            _log(run_id, artifact, measured)
            gateway.run_finish(run_id)

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
    plugin = optimizer(params.optimizer)
    with scratch_folder(job) as scratch:
        with job.step("fetch"):
            model = placed(artifact_file(parent), scratch / "parent.onnx")
            dataset, rows = evaluation_rows(parent.version)
            job.progress(0.1)
        with job.step("convert"):
            made = sandboxed(
                job,
                "engine.optimize.tasks:make",
                params={"steps": [{"optimizer": params.optimizer, "options": params.options}]},
                inputs={"model": model},
                scratch=scratch,
                limits=OPTIMIZE_LIMITS,
            )
            variant = made_file(made, "model.onnx", scratch / "variant.onnx")
            sha256, size = file_digest(variant), variant.stat().st_size
            job.progress(0.3, f"{plugin.label}: {parent.size} → {size} bytes.")
        with job.step("check"):
            facts = onnx_facts(job, variant, scratch)
        with job.step("measure"):
            inputs = {**_inputs(variant, dataset, rows, scratch), "reference": model}
            measured = _measure(job, parent, dataset, inputs, params.rounds, scratch)
            faster = 1 / measured["ratio_to_reference"]
            job.progress(0.8, _words(plugin.label, measured) + f" {faster:.2f} times the parent's speed.")
        with job.step("store"):
            run_id = job.once("run", lambda: job_run(job, parent.version, f"optimize {params.optimizer}"))
            job.note_run(run_id)
            uri = job.once(
                f"store:{sha256}",
                lambda: storage.put_file(variant, run_id=run_id, artifact_path=f"optimize/{sha256[:16]}/model.onnx"),
            )
            storage.cache_add(variant, sha256=sha256)
        with job.step("register"):
            _log(run_id, parent, measured, optimizer=params.optimizer, sha256=sha256)
            gateway.run_finish(run_id)

    def commit() -> dict[str, Any]:
        artifact = results.artifact_record(
            version=parent.version,
            format=Format.ONNX,
            sha256=sha256,
            size=size,
            file_name="model.onnx",
            uri=uri,
            parent=parent,
            recipe={
                "optimizer": params.optimizer,
                "label": plugin.label,
                "labels": parent.recipe.get("labels"),
                "steps": made.value["steps"],
                "versions": made.value["versions"],
            },
            verdict=Verdict.CLEAN,
            signature=facts["signature"],
            mlflow_run_id=run_id,
            job_id=job.id,
        )
        common = {"dataset": dataset, "job_id": job.id, "run_id": run_id}
        results.measurement_record(artifact=artifact, measured={**measured, "speedup": faster}, **common)
        beside = {**measured["reference"], "profile": measured["profile"], "speedup": 1.0}
        results.measurement_record(artifact=parent, measured=beside, **common)
        return {"artifact": artifact.pk}

    return Done({"sha256": sha256, "size": size, "speedup": faster}, commit=commit)


def _inputs(model: Path, dataset: Dataset | None, rows: Path | None, scratch: Path) -> dict[str, Path]:
    if dataset is None or rows is None:
        return {"model": model}
    return {"model": model, "rows": placed(rows, scratch / dataset.file_name)}


def _measure(
    job: JobContext,
    artifact: Artifact,
    dataset: Dataset | None,
    inputs: dict[str, Path],
    rounds: int,
    scratch: Path,
) -> dict[str, Any]:
    return sandboxed(
        job,
        "engine.evaluate.tasks:measure",
        params={
            "task": artifact.version.model.task,
            "rounds": rounds,
            "target": dataset.target if dataset else "target",
            "labels": artifact.recipe.get("labels"),
        },
        inputs=inputs,
        scratch=scratch,
        limits=MEASURE_LIMITS,
    ).value


def _words(label: str, measured: dict[str, Any]) -> str:
    quality = ", ".join(f"{name} {value:.4f}" for name, value in sorted(measured["metrics"].items()))
    latency = measured["latency_ms"]
    return f"{label}: p50 {latency['p50']:.3f} ms, p95 {latency['p95']:.3f} ms" + (f", {quality}." if quality else ".")


def _log(run_id: str, artifact: Artifact, measured: dict[str, Any], sha256: str = "", **params: Any) -> None:
    """What MLflow keeps of it. The digest is a tag: a repeated attempt may make other bytes, and MLflow refuses
    to change a parameter."""
    gateway.run_log(
        run_id,
        params={"artifact": artifact.sha256, **params},
        metrics=numbers(
            {
                **measured["metrics"],
                **{f"latency_{name}_ms": value for name, value in measured["latency_ms"].items()},
                "size_bytes": measured["size_bytes"],
                "peak_memory_mb": measured["peak_memory_mb"],
                "ratio_to_reference": measured.get("ratio_to_reference"),
            }
        ),
        tags={"sha256": sha256} if sha256 else {},
    )
