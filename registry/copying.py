"""A new version of bytes that the project already holds, in one statement.

Registering is what pipelines do all day, so it is the one write that does not go through the ORM row by row:
finding the bytes, allotting the number, the version and its artifact are one round trip.
"""

from __future__ import annotations

from registry.models import Artifact, Format, Model, Origin, Verdict, Version, VersionState
from slipway.api.problems import Conflict, Problem

# The attestation goes with the bytes: it says where the project recorded them first. What is not signed is not
# copied, so that copying can make nothing trusted that was not.
_COPIED = (
    "format, sha256, size, file_name, uri, manifest, recipe, verdict, findings, signature, parity, attestation, "
    "mlflow_run_id"
)

# The ORM's column defaults are written out: a column added to either table must be added here (the tests say so).
_STATEMENT = f"""
WITH held AS (
    SELECT artifact.*, origin.framework, origin.signature AS version_signature, origin.packages, jsonb_strip_nulls(
        jsonb_build_object('requirements', origin.params->'requirements', 'python', origin.params->'python',
            'requirements_refused', origin.params->'requirements_refused')) AS recorded
    FROM registry_artifact artifact
    JOIN registry_version origin ON origin.id = artifact.version_id
    JOIN registry_model model ON model.id = origin.model_id
    WHERE artifact.sha256 = %(sha256)s AND model.project_id = %(project)s
      AND artifact.format IN ('{Format.ONNX.value}', '{Format.SOURCE.value}')
      AND artifact.verdict <> '{Verdict.REJECTED.value}' AND artifact.attestation <> '{{}}'
      AND origin.state = '{VersionState.READY.value}'
    ORDER BY artifact.id LIMIT 1
), numbered AS (
    UPDATE registry_model SET last_number = last_number + 1
    WHERE id = %(model)s AND archived_at IS NULL AND EXISTS (SELECT 1 FROM held)
    RETURNING id, last_number
), version AS (
    INSERT INTO registry_version (
        model_id, number, state, reason, origin, framework, signature, metrics, params, packages, baseline, card,
        approval, mlflow_run_id, mlflow_source, created_by_id, revision)
    SELECT numbered.id, numbered.last_number, '{VersionState.READY.value}', '', '{Origin.COPY.value}', held.framework,
           held.version_signature, '{{}}', held.recorded, held.packages, '{{}}', '', 'none', held.mlflow_run_id, '',
           %(actor)s, 1
    FROM numbered, held
    RETURNING *
), artifact AS (
    INSERT INTO registry_artifact (version_id, {_COPIED})
    SELECT version.id, {", ".join(f"held.{name.strip()}" for name in _COPIED.split(","))} FROM version, held
)
SELECT * FROM version
"""  # noqa: S608  (only names of columns and states are put in)


def copy_at_once(*, model: Model, sha256: str, actor_id: int | None) -> Version:
    """The new version. Problem or Conflict when the bytes are not there, not fit, or the model is archived."""
    values = {"sha256": sha256, "project": model.project_id, "model": model.pk, "actor": actor_id}
    for version in Version.objects.raw(_STATEMENT, values):
        version.model = model
        return version
    raise _why_not(model, sha256)


def _why_not(model: Model, sha256: str) -> Problem:
    model.refresh_from_db()
    if model.archived_at is not None:
        return Conflict("This model is archived; restore it before you add versions.")
    held = Artifact.objects.filter(version__model__project=model.project_id, sha256=sha256)
    held = held.filter(format__in=[Format.ONNX, Format.SOURCE])
    if not held.exists():
        return Problem("This project holds no artifact with this digest.", field="artifact")
    if not held.exclude(attestation={}).exists():
        return Conflict("This artifact is not signed.")
    return Conflict("This artifact was not found fit.")
