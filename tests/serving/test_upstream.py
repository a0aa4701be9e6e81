"""A deployment that another V2 server answers for: canaries beside a local model, refusals, failures, breaker."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from serving.upstream import BREAK_AFTER
from tests.serving import models
from tests.serving.conftest import Server, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.models import rows

Serve = Callable[..., Server]


def forwarded(ident: str, url: str, weight: float, model: str = "tiny", **more: Any) -> dict[str, Any]:
    spec = {"url": url, "model": model, "version": None, "timeout_s": 5, **more}
    return {**deployment(ident, b"elsewhere", weight=weight), "upstream": spec}


def start(serve: Serve, control: ControlPlane, home: Path, *deployments: dict[str, Any]) -> Server:
    control.publish(endpoint("m", *deployments))
    return serve("--home", str(home), "--control-url", control.url)


def test_canary_between_a_local_model_and_an_upstream_answers_from_both(
    serve: Serve, control: ControlPlane, standalone: Server, tmp_path: Path
) -> None:
    local = deployment("1", control.add(models.classifier()), weight=50)
    server = start(serve, control, tmp_path, local, forwarded("2", standalone.url, 50)).wait_ready("m")
    seen: Counter[str] = Counter()
    for number in range(60):
        answer = server.infer("m", rows(2), id=f"r{number}")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["model_name"] == "m" and body["id"] == f"r{number}"
        assert answer.headers["x-slipway-deployment"] == body["model_version"]
        seen[body["model_version"]] += 1
    assert set(seen) == {"1", "2"} and min(seen.values()) > 10
    assert control.state("2")["state"] == "ready" and not control.downloads.count("elsewhere")


def test_binary_tensors_pass_through_an_upstream_both_ways(
    serve: Serve, control: ControlPlane, standalone: Server, tmp_path: Path
) -> None:
    server = start(serve, control, tmp_path, forwarded("2", standalone.url, 100, model="id-fp32")).wait_ready("m")
    values = np.arange(6, dtype=np.float32)
    described = standalone.client.get("/v2/models/id-fp32").json()["inputs"][0]
    shape = [6 if d < 0 else d for d in described["shape"]]
    values = np.arange(int(np.prod(shape)), dtype=np.float32)
    head = json.dumps({
        "inputs": [{"name": described["name"], "datatype": "FP32", "shape": shape,
                    "parameters": {"binary_data_size": values.nbytes}}],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    answer = server.client.post(
        "/v2/models/m/infer",
        content=head + values.tobytes(),
        headers={"inference-header-content-length": str(len(head))},
    )
    assert answer.status_code == 200, answer.text
    assert answer.content.endswith(values.tobytes())
    size = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.content[:size])["model_name"] == "m"


def test_refusals_of_an_upstream_are_the_clients_and_its_failures_the_deployments(
    serve: Serve, control: ControlPlane, tmp_path: Path, model_folder: Path
) -> None:
    upstream = serve("--models", str(model_folder)).wait_ready("tiny")
    server = start(serve, control, tmp_path, forwarded("2", upstream.url, 100)).wait_ready("m")
    refused = server.infer("m", {**rows(), "datatype": "INT64"})
    assert refused.status_code == 400 and "datatype" in refused.json()["error"]
    upstream.process.kill()
    upstream.process.wait()
    codes = [server.infer("m", rows()).status_code for _ in range(BREAK_AFTER + 3)]
    assert codes[:BREAK_AFTER] == [502] * BREAK_AFTER and set(codes[BREAK_AFTER:]) == {503}
    wait_until(lambda: sum(w["errors"] for r in list(control.accepted.values()) for w in r["windows"]) >= BREAK_AFTER)
    assert "slipway_upstreams_open" in server.client.get("/metrics").text


def test_upstream_that_is_not_ready_is_said_and_the_old_deployment_answers_on(
    serve: Serve, control: ControlPlane, standalone: Server, tmp_path: Path
) -> None:
    local = deployment("1", control.add(models.classifier()))
    server = start(serve, control, tmp_path, local).wait_ready("m")
    for ident, url, model in (("2", "http://127.0.0.1:9", "tiny"), ("3", standalone.url, "nobody")):
        control.publish(endpoint("m", forwarded(ident, url, 100, model=model)))
        wait_until(lambda i=ident: control.state(i).get("state") == "failed")
        assert "upstream" in control.state(ident)["reason"]
        assert server.infer("m", rows()).json()["model_version"] == "1"
    control.publish(endpoint("m", forwarded("4", "http://169.254.169.254", 100)))
    wait_until(lambda: "must not be asked" in control.state("4").get("reason", ""))
