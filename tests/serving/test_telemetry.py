"""Reports: every request counted once, whatever happens to the control plane."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.formats.latency import quantile
from serving import telemetry
from serving.document import Placement
from serving.model import load_model
from serving.table import Deployment
from serving.telemetry import Recorder
from tests.serving import models
from tests.serving.conftest import Server, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.models import rows

Serve = Callable[..., Server]


def counted(control: ControlPlane, field: str = "requests") -> int:
    return sum(w[field] for report in list(control.accepted.values()) for w in report["windows"])


def start(serve: Serve, control: ControlPlane, home: Path, data: bytes) -> Server:
    control.publish(endpoint("m", deployment("12", control.add(data), version="3")))
    return serve("--home", str(home), "--control-url", control.url).wait_ready("m")


def test_report_has_the_shape_of_the_contract_when_sent(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    server = start(serve, control, tmp_path, models.classifier())
    labels: Counter[str] = Counter()
    for _ in range(5):
        for label in server.infer("m", rows(3), outputs=[{"name": "scores"}, {"name": "label"}]).json()["outputs"][1][
            "data"
        ]:
            labels[str(label)] += 1
    # Classes are counted although this caller does not ask for them.
    server.infer("m", rows(), outputs=[{"name": "scores"}])
    wait_until(lambda: counted(control) == 6)
    report = control.received[-1]
    assert set(report) == {
        "instance", "process", "pid", "started", "version", "memory_bytes", "seq", "generation", "interval_s",
        "deployments", "windows",
    }  # fmt: skip
    assert report["process"] == 0 and report["generation"] == 1
    state = report["deployments"]["12"]
    assert set(state) == {"state", "reason", "sha256", "memory_bytes", "cost_us", "batching", "provider"}
    assert state["memory_bytes"] > 0 and state["cost_us"] > 0 and state["provider"] == "cpu"
    assert state["batching"]["max"] >= 1 and state["batching"]["why"]
    windows = [w for r in control.accepted.values() for w in r["windows"]]
    assert all(w["start"] % 5 == 0 and w["deployment"] == "12" for w in windows)
    assert all(sum(w["latency"].values()) == w["requests"] for w in windows)
    assert all((quantile(w["latency"], 0.5) or 0) > 0 for w in windows)
    assert sum(sum(w["batches"].values()) for w in windows) == 6
    assert all(w["compute_us"] > 0 and w["cache_hits"] == w["rejected"] == 0 for w in windows)
    seen: Counter[str] = Counter()
    for window in windows:
        seen.update(window["outputs"].get("label", {}))
    assert sum(seen.values()) == 16 and set(seen) == set(labels)


def test_requests_are_counted_once_when_answers_to_reports_are_lost(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    server = start(serve, control, tmp_path, models.constant(1))
    control.lose_answers = 2
    total = 0
    for _ in range(3):
        for _ in range(7):
            server.infer("m", rows())
            total += 1
        received = len(control.received)
        wait_until(lambda r=received: len(control.received) > r)
    wait_until(lambda: counted(control) == total)
    doubled = Counter((r["instance"], r["seq"]) for r in control.received)
    assert max(doubled.values()) > 1
    same = [r for r in control.received if doubled[(r["instance"], r["seq"])] > 1]
    assert len({str(r) for r in same}) < len(same)  # sent again word for word


def test_requests_are_counted_when_the_control_plane_was_away(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    server = start(serve, control, tmp_path, models.constant(1))
    control.refuse_reports = 2
    for _ in range(9):
        server.infer("m", rows())
    wait_until(lambda: counted(control) == 9)
    seqs = sorted(seq for _, seq in control.accepted)
    assert seqs == list(range(1, len(seqs) + 1))


def test_last_counts_are_sent_when_terminated(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    server = start(serve, control, tmp_path, models.constant(1))
    for _ in range(4):
        server.infer("m", rows())
    assert server.stop() == 0
    assert counted(control) == 4


def test_failures_of_the_model_are_errors_and_bad_requests_are_not_when_counted(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    server = start(serve, control, tmp_path, models.lookup())

    def ask(index: object) -> int:
        return server.infer("m", {"name": "i", "shape": [1], "datatype": "INT64", "data": [index]}).status_code

    statuses = [ask(1), ask(99), ask(0.5)]
    assert statuses[0] == 200 and statuses[2] == 400
    expected = 1 if statuses[1] == 500 else 0
    wait_until(lambda: counted(control) == 1 + expected)
    assert counted(control, "errors") == expected


def test_other_signature_is_blamed_on_the_deployment_when_live_ones_differ(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    a, b = control.add(models.constant(1)), control.add(models.two_inputs())
    control.publish(endpoint("m", deployment("1", a, 50), deployment("2", b, 50)))
    server = serve("--home", str(tmp_path), "--control-url", control.url).wait_ready("m")
    statuses = Counter(server.infer("m", rows(), headers={"X-Slipway-Key": str(n)}).status_code for n in range(40))
    assert set(statuses) == {200, 400}
    wait_until(lambda: counted(control) == 40)
    errors: Counter[str] = Counter()
    for report in control.accepted.values():
        for window in report["windows"]:
            errors[window["deployment"]] += window["errors"]
    assert errors["1"] == 0 and errors["2"] == statuses[400]


@pytest.fixture
def placed() -> Deployment:
    placement = Placement("7", "1", 100, "live", "0" * 64, "onnx", 0)
    return Deployment("m", placement, load_model(models.classifier()))


def test_windows_are_dropped_and_counted_when_nobody_takes_them(
    placed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "MAX_WINDOWS", 10)
    recorder = Recorder()
    for n in range(25):
        recorder.copied(placed, n * 5, 1e-4, False, None)
    assert recorder.dropped == 15
    windows = recorder.take()
    assert [w["start"] for w in windows] == [n * 5 for n in range(15, 25)]
    assert recorder.take() == []
    (total,) = recorder.totals().values()
    assert total["requests"] == 25


def test_classes_beyond_the_limit_become_other_when_counted(placed: Deployment) -> None:
    recorder = Recorder()
    recorder.copied(placed, 3, 1e-4, False, np.arange(100))
    (window,) = recorder.take()
    counts = window["outputs"]["label"]
    assert len(counts) == 65 and counts["other"] == 36
