"""The main job, from a training script to a retrained version, over HTTP and by the product's own client.

The steps build on each other: the file runs in order, and a step whose ground is missing is skipped.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e.broken import failing_twin
from tests.e2e.stack import ROOT, Stack, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
STEPS = [
    {"mode": "canary", "weight": 20, "min_seconds": 2, "min_requests": 20},
    {"mode": "canary", "weight": 50, "min_seconds": 2, "min_requests": 20},
    {"mode": "full", "weight": 100, "min_seconds": 2},
]


class Story(SimpleNamespace):
    """What the steps leave for each other."""

    def __getattr__(self, name: str) -> Any:
        pytest.skip(f"an earlier step did not make {name}")


@pytest.fixture(scope="module")
def demo(stack: Stack) -> Any:
    """`examples/digits/demo.py`, which reads its addresses when it is imported."""
    given = {"SLIPWAY_URL": stack.url, "SLIPWAY_SERVING_URL": stack.serving, "SLIPWAY_TOKEN": stack.token}
    before = {name: os.environ.get(name) for name in given}
    folder = str(ROOT / "examples" / "digits")
    os.environ.update(given)
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("demo")
    finally:
        sys.path.remove(folder)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        for name in ("demo", "client"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def story(demo: Any, stack: Stack) -> Story:
    return Story(client=demo.Slipway(stack.url, stack.token, stack.serving), began=time.monotonic())


def test_version_appears_when_an_unchanged_mlflow_script_registers(demo: Any, story: Story) -> None:
    version = demo.train(story.client, hidden=32)
    assert (version["number"], version["state"], version["framework"]) == (1, "ready", "sklearn")
    assert version["metrics"]["accuracy"] > 0.9
    assert version["signature"]["inputs"] and version["mlflow_run_id"]
    assert len(version["baseline"]["features"]) == 64
    source = story.client.first("/artifacts", version=version["id"], format="source")
    assert len(source["sha256"]) == 64 and source["verdict"] == "clean"
    story.first = version


def test_exports_agree_with_the_source_when_made(demo: Any, story: Story) -> None:
    for format in ("onnx", "pmml"):
        made = demo.artifact(story.client, story.first["id"], format)
        assert made["parity"]["max_abs"] < 1e-4 and made["parity"]["agreement"] == 1.0
        assert made["parity"]["rows"] >= 100
        setattr(story, format, made)


def test_variant_is_measured_beside_its_parent_when_optimized(story: Story) -> None:
    asked = story.client.post(f"/artifacts/{story.onnx['id']}/optimize", {"optimizer": "dynamic-quantization"})
    ended = story.client.job(asked["id"])
    variant = story.client.get(f"/artifacts/{ended['result']['artifact']}")
    parent = story.client.get(f"/artifacts/{story.onnx['id']}")
    assert "int8" in variant["label"] and variant["size"] < parent["size"]
    for made in (variant, parent):
        found = next(row for row in made["measurements"] if row["job"] == asked["id"])
        assert found["metrics"]["accuracy"] > 0.9
        assert 0 < found["latency_p50_ms"] <= found["latency_p95_ms"]
        assert found["mlflow_run_id"] == ended["mlflow_run_id"]


def test_endpoint_answers_v2_json_when_deployed(demo: Any, story: Story) -> None:
    endpoint = demo.deploy(story.client, story.onnx)
    rows, labels = demo.held_out()
    # As curl sends it: no token, no client library.
    body = story.client.request_body("digits", rows[:50])
    answer = httpx.post(f"{demo.SERVING}/v2/models/digits/infer", json=body, timeout=30)
    assert answer.status_code == 200
    predicted = next(out["data"] for out in answer.json()["outputs"] if out["datatype"] == "INT64")
    assert np.mean(np.array(predicted) == labels[:50]) > 0.9
    story.endpoint = endpoint


def test_endpoint_answers_tritonclient_when_deployed(demo: Any, story: Story) -> None:
    import tritonclient.http as triton

    assert story.endpoint
    rows, labels = demo.held_out()
    with triton.InferenceServerClient(demo.SERVING.removeprefix("http://")) as client:
        assert client.is_model_ready("digits")
        described = client.get_model_metadata("digits")
        tensor = triton.InferInput(described["inputs"][0]["name"], [20, 64], "FP32")
        tensor.set_data_from_numpy(np.ascontiguousarray(rows[:20]))
        name = next(out["name"] for out in described["outputs"] if out["datatype"] == "INT64")
        result = client.infer("digits", [tensor], outputs=[triton.InferRequestedOutput(name)])
    assert np.mean(result.as_numpy(name).ravel() == labels[:20]) > 0.8


def test_canary_is_promoted_without_a_failed_request_when_candidate_is_sound(demo: Any, story: Story) -> None:
    assert story.endpoint
    second = demo.train(story.client, hidden=64)
    onnx = demo.artifact(story.client, second["id"], "onnx")
    asked = {"endpoint": story.endpoint["id"], "artifact": onnx["id"], "steps": STEPS}
    rollout = story.client.post("/rollouts", asked)
    traffic = demo.Traffic(story.client)
    traffic.start()
    story.client.job(rollout["job"])
    traffic.over.set()
    traffic.join()
    ended = story.client.get(f"/rollouts/{rollout['id']}")
    assert ended["state"] == "promoted", ended["reason"]
    assert traffic.failed == 0 and traffic.sent > 100
    assert set(traffic.by_version) == {"1", "2"}
    weights = [row["data"].get("weight") for row in reversed(ended["decisions"]) if row["action"] == "step"]
    assert weights == [20, 50, 100]
    story.second, story.second_onnx = second, onnx


def test_canary_goes_back_by_itself_when_candidate_fails_with_real_rows(demo: Any, story: Story, stack: Stack) -> None:
    assert story.second
    content = story.client.api.get(f"/artifacts/{story.second_onnx['id']}/content").content
    uploaded = story.client.api.post(
        "/versions/upload",
        params={"model": "digits", "file_name": "twin.onnx"},
        content=failing_twin(content),
        headers={"content-type": "application/octet-stream"},
    )
    assert uploaded.status_code == 201, uploaded.text
    artifact = story.client.first("/artifacts", version=uploaded.json()["id"], format="onnx")
    number = str(uploaded.json()["number"])
    asked = {"endpoint": story.endpoint["id"], "artifact": artifact["id"], "steps": STEPS}
    rollout = story.client.post("/rollouts", asked)
    rows, _labels = demo.held_out()
    body = story.client.request_body("digits", rows[:1])
    failed = answered = clean = 0
    deadline = time.monotonic() + 120
    state = ""
    # Serving hears of the return by long poll: from then on nothing fails any more.
    while time.monotonic() < deadline and not (state == "rolled-back" and clean >= 400):
        answer = story.client.serving.post("/v2/models/digits/infer", json=body)
        if answer.status_code == 200:
            answered, clean = answered + 1, clean + 1
        else:
            failed, clean = failed + 1, 0
        if (failed + answered) % 20 == 0 and state != "rolled-back":
            state = story.client.get(f"/rollouts/{rollout['id']}")["state"]
        time.sleep(0.005)
    ended = story.client.get(f"/rollouts/{rollout['id']}")
    assert ended["state"] == "rolled-back" and "Error burst" in ended["reason"], ended
    assert clean >= 400 and 20 <= failed < answered, (clean, failed, answered)
    rows_now = story.client.get(f"/endpoints/{story.endpoint['id']}")["deployments"]
    assert {row["version"]: row["weight"] for row in rows_now}[story.second["number"]] == 100
    quiet = [story.client.serving.post("/v2/models/digits/infer", json=body) for _ in range(50)]
    assert {(a.status_code, a.json().get("model_version")) for a in quiet} == {(200, str(story.second["number"]))}
    assert number not in {a.json()["model_version"] for a in quiet}


def test_windows_show_requests_errors_latency_and_classes_within_ten_seconds(demo: Any, story: Story) -> None:
    rows, _labels = demo.held_out()
    path = f"/endpoints/{story.endpoint['id']}/stats"

    def of_second() -> dict[str, Any]:
        return next(row for row in story.client.get(path) if row["version"] == story.second["number"])

    before = of_second()
    for start in range(0, 100, 2):
        story.client.infer("digits", rows[start : start + 2])
    found = until(
        lambda: (row := of_second())["requests"] >= before["requests"] + 50 and row, 10, "The windows' arrival"
    )
    assert found["errors"] == before["errors"]
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    counts = next(iter(found["outputs"].values()))
    assert set(counts) <= {*map(str, range(10)), "other"} and sum(counts.values()) >= 100
    failing = [row for row in story.client.get(path) if row["errors"]]
    assert len(failing) == 1 and failing[0]["errors"] == failing[0]["requests"]


def test_hook_retrains_once_when_its_message_is_replayed(story: Story, stack: Stack) -> None:
    policy = story.client.post("/policies", {"model": story.first["model"], "name": "new labels", "hook": True})
    secret = story.client.post(f"/policies/{policy['id']}/secret")["secret"]
    sent: dict[str, Any] = {}

    def remember(url: str, **given: Any) -> httpx.Response:
        sent.update(given, url=url)
        return httpx.request("POST", url, **given)

    client = sys.modules["client"]
    original, client.httpx = client.httpx, SimpleNamespace(post=remember)
    try:
        firing = story.client.call_hook(policy["hook_url"], secret, {"event": "labels.arrived"})
    finally:
        client.httpx = original
    replay = httpx.request("POST", **sent)
    assert (replay.status_code, replay.json()["code"]) == (409, "hook_replayed")
    ended = story.client.job(firing["job"])
    version = story.client.get(f"/versions/{ended['result']['version']}")
    assert (version["origin"], version["mlflow_run_id"]) == ("retraining", ended["mlflow_run_id"])
    story.client.job(version["job"])
    assert story.client.get(f"/versions/{version['id']}")["state"] == "ready"
    print(f"\nthe main job took {time.monotonic() - story.began:.0f} s after the start")
