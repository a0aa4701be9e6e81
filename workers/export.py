"""Queue `export`: ingesting registered versions, and exporting them to other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.utils.translation import gettext_lazy as _
from pydantic import BaseModel

from engine.digests import file_digest
from engine.errors import EngineError
from engine.export.base import exporter, exporters
from engine.sandbox import Limits, SandboxResult
from registry import results, storage
from registry.mlflow import gateway
from registry.mlflow.locations import location_of
from registry.models import Dataset, DatasetRole, EnvironmentOrigin, Format, Task, Verdict, Version
from registry.packages import plan_for
from registry.services import export_request
from slipway.jobs.context import JobContext
from slipway.jobs.kernel import job_of
from slipway.jobs.kinds import Done, Later, job_kind
from slipway.jobs.services import submit
from workers.common import (
    FETCH_LIMIT,
    file_facts,
    file_stored,
    made_file,
    onnx_facts,
    placed,
    sandboxed,
    scratch_folder,
    source_and_rows,
    source_of,
)
from workers.environments import prepared, waits_for
from workers.refusals import SCAN_LIMITS, refused, scanned_source
from workers.runs import job_run, numbers

# Where a training run may leave its rows; nothing of Slipway is imported for it.
DATASETS = {role: [f"datasets/{role.value}.{suffix}" for suffix in ("csv", "parquet", "npz")] for role in DatasetRole}
EXPORT_LIMITS = Limits(seconds=600, memory_mb=6144)


class IngestParams(BaseModel):
    version_id: int


@job_kind("ingest", queue="export", params=IngestParams, label=_("Take in"))
def ingest(job: JobContext, params: IngestParams) -> Done:
    """Fetches a registered version's bytes, scans them as data, and describes the version."""
    version = Version.objects.select_related("model__project").get(pk=params.version_id)
    with scratch_folder(job) as scratch:
        with job.step("fetch"):
            uri = location_of(version.mlflow_source)
            source = scratch / "source"
            try:
                manifest = storage.fetch_folder(uri, source)
            except EngineError as error:
                return refused(version, error)
            run = gateway.run_read(version.mlflow_run_id) if version.mlflow_run_id else None
            sizes = sum(entry["size"] for entry in manifest)
            job.progress(0.3, f"{len(manifest)} files, {sizes} bytes.")
        with job.step("hash"):
            digest = storage.manifest_digest(manifest)
            job.log(f"Source {digest}.")
        with job.step("scan"):
            scanned = scanned_source(job, source, scratch)
            job.progress(0.6, f"Scan: {scanned['verdict']}.")
        with job.step("datasets"):
            # Of a model that is not taken in nothing else is read either.
            fit = scanned["verdict"] != Verdict.REJECTED
            datasets = _datasets(job, version.mlflow_run_id, scratch) if fit else {}
            baseline = _baseline(job, datasets, scratch)
            job.progress(0.9)

    def commit() -> dict[str, Any]:
        reasons = [finding["message"] for finding in scanned["findings"] if finding["level"] == "rejected"]
        results.version_described(
            version=version,
            framework=scanned["framework"],
            signature=scanned["signature"] or {},
            metrics=dict(run.metrics) if run else {},
            params={**_packages(scanned), "run": dict(run.params) if run else {}},
            baseline=baseline,
            verdict=scanned["verdict"],
            reason=" ".join(reasons)[:1000],
        )
        artifact = results.artifact_record(
            version=version,
            format=Format.SOURCE,
            sha256=digest,
            size=sizes,
            file_name="model",
            uri=uri,
            manifest=manifest,
            verdict=Verdict(scanned["verdict"]),
            findings=scanned["findings"],
            mlflow_run_id=version.mlflow_run_id,
            job_id=job.id,
        )
        for role, found in datasets.items():
            results.dataset_record(version=version, role=role, **found)
        version.refresh_from_db()
        # What the scan could not follow is opened only when a person asks for it (and then in the sandbox).
        if version.state == "ready" and scanned["verdict"] == Verdict.CLEAN:
            able = [
                name
                for name, entry in exporters().items()
                if entry.why_not(version.framework) is None and not entry.on_request
            ]
            export_request(actor=None, version=version, exporters=able)
        return {"artifact": artifact.pk, "state": version.state}

    return Done({"sha256": digest}, commit=commit)


def _packages(scanned: dict[str, Any]) -> dict[str, Any]:
    """What the scan says of the model's environment, as `registry.packages` reads it."""
    return {name: scanned[name] for name in ("requirements", "requirements_refused", "python")}


def _datasets(job: JobContext, run_id: str, scratch: Path) -> dict[str, dict[str, Any]]:
    """Rows that the training run logged under `datasets/`: {role: fields of a Dataset}."""
    if not run_id:
        return {}
    listed = {entry.path: entry for entry in gateway.artifacts_list(run_id, "datasets")}
    found: dict[str, dict[str, Any]] = {}
    for role, names in DATASETS.items():
        name = next((name for name in names if name in listed), None)
        if name is None:
            continue
        uri = location_of(f"runs:/{run_id}/{name}")
        path = storage.fetch_file(uri, sha256=None, size_limit=FETCH_LIMIT)
        job.log(f"{role.label} rows: {name}, {path.stat().st_size} bytes.")
        found[role.value] = {
            "sha256": path.name,
            "size": path.stat().st_size,
            "file_name": Path(name).name,
            "uri": uri,
        }
    return found


def _baseline(job: JobContext, datasets: dict[str, dict[str, Any]], scratch: Path) -> dict[str, Any]:
    """Distribution of the training rows, for drift later; empty when the run logged none."""
    training = datasets.get(DatasetRole.TRAINING)
    if training is None:
        return {}
    path = storage.fetch_file(training["uri"], sha256=training["sha256"], size_limit=FETCH_LIMIT)
    named = placed(path, scratch / training["file_name"])
    value = sandboxed(
        job,
        "engine.drift.tasks:baseline",
        params={},
        inputs={"rows": named},
        scratch=scratch,
        limits=SCAN_LIMITS,
    ).value
    training["rows"] = value["rows"]
    return value


class ExportParams(BaseModel):
    version_id: int
    exporter: str
    options: dict[str, Any] = {}
    tolerance: float = 1e-4


@job_kind("export", queue="export", params=ExportParams, label=_("Export"))
def export_version(job: JobContext, params: ExportParams) -> Done | Later:
    """Converts a version in the sandbox, proves that it predicts the same, stores it."""
    version = Version.objects.select_related("model__project").get(pk=params.version_id)
    plugin = exporter(params.exporter)
    kit = None if plugin.why_not(version.framework) else plugin.environment(version.framework)
    plan = plan_for(version, kit)
    if later := waits_for(plan, version):
        return later
    with scratch_folder(job) as scratch, prepared(job, plan) as python:
        with job.step("fetch"):
            inputs, dataset = source_and_rows(version, scratch)
            job.progress(0.2)
        with job.step("convert"):
            made = _converted(job, version, params, dataset, inputs, scratch, python)
            value = made.value
            job.progress(0.6, _parity_words(value["parity"]))
            found = "model.onnx" if plugin.from_onnx else plugin.file_name
            file = made_file(made, found, scratch / f"made-{found}")
        with job.step("check"):
            signature = value["signature"]
            if plugin.format == Format.ONNX:
                # The child that wrote it also ran the model's own code: nothing it says makes the file clean.
                signature = onnx_facts(job, file, scratch)["signature"]
            elif plugin.format == Format.PMML:
                # For the same reason; a JVM scorer may have to read it.
                file_facts(job, "check_pmml", file, scratch)
            elif plugin.from_onnx:
                # Only the ONNX file is taken from that child; what is made of it is made again, elsewhere.
                again = sandboxed(
                    job,
                    "engine.export.tasks:wrap",
                    params={"exporter": params.exporter, "options": params.options},
                    inputs={"file": file},
                    scratch=scratch,
                )
                signature = again.value["signature"]
                file = made_file(again, plugin.file_name, scratch / f"made-{plugin.file_name}")
            task = Task.OTHER.value
            if plugin.format == Format.ONNX and dataset is not None and version.model.task == Task.OTHER:
                files = {"file": file, "rows": inputs["rows"]}
                task = _guessed_task(job, version, dataset.target, files, scratch)
            job.progress(0.7)
        with job.step("hash"):
            sha256, size = file_digest(file), file.stat().st_size
        with job.step("store"):
            run_id = job.once("run", lambda: job_run(job, version, f"export {params.exporter}"))
            job.note_run(run_id)
            uri = file_stored(job, file, sha256=sha256, run_id=run_id, folder="export", name=plugin.file_name)
        with job.step("register"):
            gateway.run_log(
                run_id,
                params={"exporter": params.exporter, "version": str(version)},
                metrics=numbers({"size_bytes": size, **value["parity"]}),
                # A tag, because the bytes may differ when a killed attempt is repeated (PMML holds the time),
                # and MLflow refuses to change a parameter.
                tags={"sha256": sha256},
            )
            gateway.run_finish(run_id)

    def commit() -> dict[str, Any]:
        artifact = results.artifact_record(
            version=version,
            format=plugin.format,
            sha256=sha256,
            size=size,
            file_name=plugin.file_name,
            uri=uri,
            parent=source_of(version),
            recipe={
                "exporter": params.exporter,
                "options": params.options,
                "environment": None if plan.origin == EnvironmentOrigin.WORKER else plan.name,
                "packages": plan.origin,
                # The folder's name is the lock's digest, which a plan that was still to be resolved does not have.
                "lock": python.parents[1].name if python else None,
                "opset": value.get("opset"),
                "labels": value.get("labels"),
                **({"converter": value["converter"]} if value.get("converter") else {}),
            },
            verdict=Verdict.CLEAN,
            signature=signature,
            parity={**value["parity"], "tolerance": value["tolerance"], "rows_from": value["rows_from"]},
            mlflow_run_id=run_id,
            job_id=job.id,
        )
        if artifact.format == Format.ONNX and dataset is not None:
            results.task_infer(version=version, task=task)
            submit(
                "measure",
                project=version.model.project,
                params={"artifact_id": artifact.pk},
                subject=f"{version} · {artifact.label}",
                parent=job_of(job.id),
                key=f"measure:{job.id}:{artifact.pk}",
            )
        return {"artifact": artifact.pk}

    return Done({"sha256": sha256, "format": plugin.format, "size": size}, commit=commit)


def _converted(
    job: JobContext,
    version: Version,
    params: ExportParams,
    dataset: Dataset | None,
    inputs: dict[str, Path],
    scratch: Path,
    python: Path | None,
) -> SandboxResult:
    """The export in the sandbox. A PMML document that ONNX has no exact way for is kept as it is instead, by a job of
    its own: a JVM scorer can serve it."""
    try:
        return sandboxed(
            job,
            "engine.export.tasks:export",
            params={
                "exporter": params.exporter,
                "options": params.options,
                "tolerance": params.tolerance,
                "framework": version.framework,
                "target": dataset.target if dataset else "target",
            },
            inputs=inputs,
            scratch=scratch,
            limits=EXPORT_LIMITS,
            python=python,
        )
    except EngineError as error:
        if (version.framework, params.exporter, error.code) == ("pmml", "onnx", "unsupported"):
            export_request(actor=None, version=version, exporters=["pmml"])
            job.log("There is no exact ONNX; the PMML document is made ready for a JVM scorer.")
        raise


def _guessed_task(job: JobContext, version: Version, target: str, files: dict[str, Path], scratch: Path) -> str:
    """What the model seems to be for, with the reason in the log; "other" where nothing tells. files: file, rows."""
    found = sandboxed(
        job,
        "engine.evaluate.task_guess:guess",
        params={"framework": version.framework, "target": target},
        inputs=files,
        scratch=scratch,
        limits=SCAN_LIMITS,
    ).value
    job.log(f"Task: {found['task']}. {found['reason']}")
    return str(found["task"])


def _parity_words(parity: dict[str, Any]) -> str:
    words = [f"Compared on {parity['rows']} rows"]
    if parity.get("max_abs") is not None:
        words.append(f"largest difference {parity['max_abs']:.3g}")
    if parity.get("agreement") is not None:
        words.append(f"labels agree on {parity['agreement']:.2%}")
    return ", ".join(words) + "."
