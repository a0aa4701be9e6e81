"""Versions that the reconciler sees before the job that registered them has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry import storage
from registry.intake import versions_reconcile
from registry.mlflow import gateway
from registry.mlflow.locations import location_of
from registry.models import Model, Version
from slipway.jobs.models import Job
from slipway.jobs.services import submit
from tests.registry import lab

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("use_mlflow")]


def test_origin_is_the_retraining_when_the_reconciler_comes_first(model: Model, tmp_path: Path) -> None:
    Model.objects.filter(pk=model.pk).update(mlflow_name="reconciled")
    file = tmp_path / "model.onnx"
    file.write_bytes(lab.MODEL)
    runs: dict[str, str] = {}
    for name in ("trained", "pretended"):
        job = submit("retrain", project=model.project, params={"model_id": model.pk}, subject=name)
        run = gateway.run_ensure("slipway/reconciled", tags={"slipway.key": f"test:{name}"}, run_name=name)
        storage.put_file(file, run_id=run, artifact_path="model/model.onnx")
        source = location_of(f"runs:/{run}/model")
        gateway.version_register("reconciled", run_id=run, source=source, tags={"slipway.key": f"job:{job.pk}"})
        # Whoever may write to MLflow can set any tag; only the job's own run makes it true.
        Job.objects.filter(pk=job.pk).update(mlflow_run_id=run if name == "trained" else "another")
        runs[name] = run
    versions_reconcile()
    found = dict(Version.objects.filter(model=model).values_list("mlflow_run_id", "origin"))
    assert found == {runs["trained"]: "retraining", runs["pretended"]: "mlflow"}
