"""What a device without a worker measured, and how it stands beside what workers measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.evaluate.device import DeviceMeasurement
from registry import selectors
from registry.measurements import measurement_import
from registry.models import Artifact, Measurement, Model
from slipway.api.problems import Problem
from slipway.audit.models import Entry
from tests.registry import lab

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("use_mlflow")]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def base(model: Model) -> Artifact:
    return lab.artifact(model)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the device prints."""
    folder = tmp_path_factory.mktemp("device")
    (folder / "model.onnx").write_bytes(lab.MODEL)
    (folder / "rows.npz").write_bytes(lab.rows(40))
    args = ["model.onnx", "--rows", "rows.npz", "--target", "y", "--rounds", "1", "--threads", "2"]
    ran = subprocess.run(
        [sys.executable, "-m", "engine.evaluate.device", *args],
        cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def test_measurement_of_a_device_is_kept_when_it_is_of_these_bytes(base: Artifact, told: dict[str, Any]) -> None:
    row = measurement_import(actor=None, artifact=base, measured=told)
    assert row.artifact == base and row.job is None and row.metrics["accuracy"] == 1
    assert row.latency_p50_ms == told["latency_ms"]["p50"] and row.profile["threads"] == 2
    assert Entry.objects.filter(action="measurement.import").count() == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sha256": "0" * 64}, "measured.sha256"),
        ({"reference_sha256": "1" * 64}, "measured.reference_sha256"),
        ({"latency_ms": {"p50": 3, "p95": 2, "p99": 4}}, "measured.latency_ms"),
        ({"latency_ms": {"p50": -1, "p95": 2, "p99": 4}}, "measured.latency_ms.p50"),
        ({"metrics": {"accuracy": float("nan")}}, "measured.metrics"),
        ({"profile": {"cpu": ""}}, "measured.profile.cpu"),
    ],
)
def test_measurement_is_refused_with_its_field_when_it_cannot_be(
    base: Artifact, told: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    with pytest.raises(Problem) as raised:
        measurement_import(actor=None, artifact=base, measured={**told, **change})
    assert raised.value.field == field and not Measurement.objects.exists()


def test_devices_are_never_compared_when_an_artifact_was_measured_on_several(
    base: Artifact, told: dict[str, Any]
) -> None:
    content = lab.MODEL + b"\x00"  # any other bytes: nothing runs them here
    named = {"format": "onnx", **lab.stored(content, "model.onnx")}
    variant = Artifact.objects.create(version=base.version, parent=base, verdict="clean", **named)
    board = {**told["profile"], "cpu": "Cortex-A72", "machine": "aarch64"}
    for artifact, profile, p50 in ((base, told["profile"], 2), (variant, told["profile"], 1), (variant, board, 9)):
        figures = {"p50": p50, "p95": p50, "p99": p50}
        there = {**told, "sha256": artifact.sha256, "profile": profile, "latency_ms": figures}
        measurement_import(actor=None, artifact=artifact, measured=there)
    rows = selectors.measurements_of(selectors.artifacts_of(base.version))
    changes = {
        (row["artifact"].pk, row["measured"].profile["cpu"]): row["change"].get("latency") for row in rows
    }  # fmt: skip
    assert changes == {
        (base.pk, told["profile"]["cpu"]): None,
        (variant.pk, told["profile"]["cpu"]): -0.5,
        (variant.pk, "Cortex-A72"): None,
    }


def test_device_says_in_one_line_what_is_wrong_when_the_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    ran = subprocess.run(
        [sys.executable, "-m", "engine.evaluate.device", "model.onnx"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 1 and ran.stderr.startswith("device: ") and ran.stderr.count("\n") == 1
    with pytest.raises(ValueError, match="sha256"):
        DeviceMeasurement.model_validate({"sha256": "x"})
