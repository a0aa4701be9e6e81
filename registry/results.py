"""What jobs add to a version: facts of the scan, artifacts, datasets, measurements.

All of it is written inside the job's completing transaction, and every write may be repeated.
"""

from __future__ import annotations

from typing import Any

from django.db.models import F

from registry.models import (
    Artifact,
    Dataset,
    DatasetRole,
    Format,
    Measurement,
    Model,
    Task,
    Verdict,
    Version,
    VersionState,
)
from registry.services import version_move
from registry.signing import attest
from slipway import events


def version_described(
    *,
    version: Version,
    framework: str,
    signature: dict[str, Any],
    metrics: dict[str, float],
    params: dict[str, Any],
    baseline: dict[str, Any],
    verdict: str,
    reason: str,
) -> None:
    """Fills in what ingestion found out, and moves the version to ready or rejected."""
    Version.objects.filter(pk=version.pk).update(
        framework=framework[:40],
        signature=signature,
        metrics=metrics,
        params=params,
        baseline=baseline,
        revision=F("revision") + 1,
    )
    rejected = verdict == Verdict.REJECTED
    version_move(
        version=version,
        state=VersionState.REJECTED if rejected else VersionState.READY,
        reason=reason if rejected else "",
    )


def task_infer(*, version: Version, task: str) -> None:
    """Names the task of a model that nobody named; see `engine.evaluate.task_guess`."""
    if task != Task.OTHER:
        Model.objects.filter(pk=version.model_id, task=Task.OTHER).update(task=Task(task), revision=F("revision") + 1)


def artifact_record(
    *, version: Version, format: str, sha256: str, size: int, file_name: str, uri: str, **more: Any
) -> Artifact:
    """Adds an artifact, signed; the same bytes in the same format are one row however often a job repeats."""
    attestation = attest(version, format=format, sha256=sha256, size=size, file_name=file_name)
    artifact, _ = Artifact.objects.get_or_create(
        version=version,
        format=Format(format),
        sha256=sha256,
        defaults={"size": size, "file_name": file_name, "uri": uri, "attestation": attestation, **more},
    )
    events.ring(version.model.project_id, "version", version.pk)
    return artifact


def dataset_record(
    *,
    version: Version,
    role: str,
    sha256: str,
    size: int,
    file_name: str,
    uri: str,
    rows: int | None = None,
    target: str = "target",
) -> Dataset:
    """Adds a dataset to the project once per content, and ties it to the version."""
    model = version.model
    dataset, _ = Dataset.objects.get_or_create(
        project_id=model.project_id,
        role=DatasetRole(role),
        sha256=sha256,
        defaults={
            "name": f"{model.name} {role}",
            "size": size,
            "file_name": file_name,
            "uri": uri,
            "rows": rows,
            "target": target,
        },
    )
    dataset.versions.add(version)
    return dataset


def measurement_record(
    *, artifact: Artifact, dataset: Dataset | None, job_id: int, run_id: str, measured: dict[str, Any]
) -> Measurement:
    """Stores the result of `engine.evaluate.tasks:measure` for one artifact."""
    latency = measured["latency_ms"]
    row, _ = Measurement.objects.get_or_create(
        artifact=artifact,
        job_id=job_id,
        defaults={
            "dataset": dataset,
            "profile": measured["profile"],
            "metrics": measured["metrics"],
            "latency_p50_ms": latency["p50"],
            "latency_p95_ms": latency["p95"],
            "latency_p99_ms": latency["p99"],
            "throughput": measured.get("throughput"),
            "peak_memory_mb": measured.get("peak_memory_mb"),
            "speedup": measured.get("speedup"),
            "mlflow_run_id": run_id,
        },
    )
    events.ring(artifact.version.model.project_id, "version", artifact.version_id)
    return row
