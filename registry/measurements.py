"""Measurements that no worker made: brought in from a device."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from engine.evaluate.device import DeviceMeasurement
from registry.models import Artifact, Dataset, Measurement
from slipway import events
from slipway.accounts import policy
from slipway.accounts.models import User
from slipway.api.problems import Problem, validated
from slipway.audit.services import record


@transaction.atomic
def measurement_import(
    *, actor: User | None, artifact: Artifact, measured: dict[str, Any], dataset: Dataset | None = None
) -> Measurement:
    """Adds what `engine.evaluate.device` printed. Problem naming the field that is wrong, or when it was measured on
    other bytes than the artifact's or beside other bytes than its parent's."""
    project_id = artifact.version.model.project_id
    policy.require(actor, policy.WRITE, project_id)
    found = validated(DeviceMeasurement, measured, "measured")
    if found.sha256 != artifact.sha256:
        raise Problem(
            "It was measured on another file than this artifact's.", field="measured.sha256", code="other-artifact"
        )
    parent = artifact.parent
    beside = found.reference_sha256 is not None
    if beside and (parent is None or parent.sha256 != found.reference_sha256):
        raise Problem(
            "It was measured beside another file than the one that this artifact was made from.",
            field="measured.reference_sha256",
            code="other-artifact",
        )
    row = Measurement.objects.create(
        artifact=artifact,
        dataset=dataset,
        profile=found.profile.model_dump(),
        metrics=found.metrics,
        latency_p50_ms=found.latency_ms.p50,
        latency_p95_ms=found.latency_ms.p95,
        latency_p99_ms=found.latency_ms.p99,
        throughput=found.throughput,
        peak_memory_mb=found.peak_memory_mb,
        speedup=1 / found.ratio_to_reference if beside and found.ratio_to_reference else None,
    )
    record(
        actor=actor, action="measurement.import", target=artifact, project_id=project_id,
        measurement=row.pk, device=found.profile.cpu,
    )  # fmt: skip
    events.ring(project_id, "version", artifact.version_id)
    return row
