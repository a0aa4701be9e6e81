"""The MLflow run that records a job."""

from __future__ import annotations

from typing import Any

from registry.mlflow import gateway
from registry.models import Version
from slipway.jobs.context import JobContext


def job_run(job: JobContext, version: Version, name: str) -> str:
    """The job's own run: found by its tag when a killed attempt already made it."""
    return gateway.run_ensure(
        f"slipway/{version.model.project.slug}",
        tags={gateway.KEY: gateway.job_key(job.id), "slipway.job": str(job.id), "slipway.version": str(version.pk)},
        run_name=f"{version} {name}",
    )


def numbers(values: dict[str, Any]) -> dict[str, float]:
    """The entries that MLflow can keep as metrics."""
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
