"""A deployment that another V2 server answers for: canaries beside a local model, readiness, counts."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serving.breaker import BREAK_AFTER
from serving.document import DocumentError, parse_document
from serving.table import Deployment, Endpoint, Shared, Table
from tests.serving import models
from tests.serving.conftest import Server, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.fake_upstream import FakeUpstream, slowly
from tests.serving.models import rows

Serve = Callable[..., Server]


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    upstream = FakeUpstream()
    yield upstream
    upstream.stop()


def forwarded(ident: str, url: str, weight: float, model: str = "tiny", **more: Any) -> dict[str, Any]:
    spec = {"url": url, "model": model, "version": None, "timeout_s": 5, **more}
    return {**deployment(ident, b"elsewhere", weight=weight), "upstream": spec}


def start(
    serve: Serve, control: ControlPlane, home: Path, *deployments: dict[str, Any], processes: int = 1, **more: Any
) -> Server:
    control.publish({**endpoint("m", *deployments), **more})
    return serve("--home", str(home), "--control-url", control.url, processes=processes)


def share(server: Server, count: int) -> Counter[str]:
    """Versions that answered so many requests, each looked at."""
    seen: Counter[str] = Counter()
    for number in range(count):
        answer = server.infer("m", rows(2), id=f"r{number}")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["model_name"] == "m" and body["id"] == f"r{number}"
        assert answer.headers["x-slipway-deployment"] == body["model_version"]
        seen[body["model_version"]] += 1
    return seen


def errors(control: ControlPlane) -> int:
    return sum(w["errors"] for r in list(control.accepted.values()) for w in r["windows"])


def metric(server: Server, name: str) -> float:
    lines = [line for line in server.client.get("/metrics").text.splitlines() if line.startswith(name)]
    return sum(float(line.split()[-1]) for line in lines)


def test_canary_between_a_local_model_and_an_upstream_answers_from_both(
    serve: Serve, control: ControlPlane, standalone: Server, tmp_path: Path
) -> None:
    local = deployment("1", control.add(models.classifier()), weight=50)
    server = start(serve, control, tmp_path, local, forwarded("2", standalone.url, 50)).wait_ready("m")
    seen = share(server, 60)
    assert set(seen) == {"1", "2"} and min(seen.values()) > 10
    wait_until(lambda: control.state("2").get("state") == "ready")
    assert forwarded("2", "", 0)["artifact"]["sha256"] not in control.downloads
    assert metric(server, "slipway_upstream_requests_total") == seen["2"]


def test_canary_between_two_upstreams_answers_from_both_and_follows_the_weights(
    serve: Serve, control: ControlPlane, standalone: Server, tmp_path: Path, model_folder: Path
) -> None:
    other = serve("--models", str(model_folder)).wait_ready("tiny")
    first, second = forwarded("1", standalone.url, 50), forwarded("2", other.url, 50)
    server = start(serve, control, tmp_path, first, second).wait_ready("m")
    described, theirs = (one.client.get(f"/v2/models/{name}").json() for one, name in ((server, "m"), (other, "tiny")))
    assert described["inputs"] == theirs["inputs"] and described["outputs"] == theirs["outputs"]
    assert (described["name"], described["versions"], described["platform"]) == ("m", ["1", "2"], "forwarded")
    index = server.client.post("/v2/repository/index").json()
    assert {entry["state"] for entry in index} == {"READY"}
    seen = share(server, 60)
    assert set(seen) == {"1", "2"} and min(seen.values()) > 10
    generation = control.publish(endpoint("m", {**first, "weight": 0}, {**second, "weight": 100}))
    wait_until(lambda: control.observed(generation))
    assert share(server, 20) == {"2": 20}


def test_binary_tensors_pass_through_an_upstream_both_ways(
    serve: Serve, control: ControlPlane, standalone: Server, tmp_path: Path
) -> None:
    server = start(serve, control, tmp_path, forwarded("2", standalone.url, 100, model="id-fp32")).wait_ready("m")
    values = np.arange(60_000, dtype=np.float32)
    head = json.dumps({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [6, 10_000],
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
    assert len(answer.content) == size + values.nbytes
    assert json.loads(answer.content[:size])["model_name"] == "m"
    as_json = server.infer("m", {"name": "x", "datatype": "FP32", "shape": [1, 30_000], "data": list(range(30_000))})
    assert as_json.json()["outputs"][0]["data"] == list(range(30_000))


def test_refusals_of_an_upstream_are_the_clients_and_its_failures_the_deployments(
    serve: Serve, control: ControlPlane, tmp_path: Path, model_folder: Path
) -> None:
    upstream = serve("--models", str(model_folder)).wait_ready("tiny")
    server = start(serve, control, tmp_path, forwarded("2", upstream.url, 100)).wait_ready("m")
    refused = server.infer("m", {**rows(), "datatype": "INT64"})
    assert refused.status_code == 400 and "datatype" in refused.json()["error"]
    upstream.process.kill()
    upstream.process.wait()
    answers = [server.infer("m", rows()) for _ in range(BREAK_AFTER + 3)]
    assert {answer.status_code for answer in answers} <= {502, 503}
    texts = [answer.json()["error"] for answer in answers]
    # A connection that was kept is found dead only when it is used.
    assert texts[BREAK_AFTER - 1] == "the server behind this model cannot be reached"
    assert set(texts[BREAK_AFTER:]) == {"the server behind this model does not answer"}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers[BREAK_AFTER - 1 :])
    wait_until(lambda: errors(control) == BREAK_AFTER + 3)
    assert metric(server, "slipway_upstreams_open{") == 1
    assert metric(server, "slipway_upstream_requests_refused_total") == 3
    assert metric(server, "slipway_upstream_failures_total") == BREAK_AFTER
    wait_until(lambda: control.state("2").get("state") == "failed")
    assert server.client.get("/v2/models/m/ready").status_code == 503


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


def test_upstream_that_ceases_to_be_ready_is_left_out_until_it_is_again(
    serve: Serve, control: ControlPlane, fake: FakeUpstream, tmp_path: Path
) -> None:
    local = deployment("1", control.add(models.classifier()), weight=20)
    server = start(serve, control, tmp_path, local, forwarded("2", fake.url, 80)).wait_ready("m")

    def versions() -> set[str]:
        return {server.infer("m", rows()).json()["model_version"] for _ in range(30)}

    assert "2" in versions()
    fake.ready = 503
    wait_until(lambda: control.state("2").get("state") == "failed")
    assert "not ready (503)" in control.state("2")["reason"]
    assert versions() == {"1"}
    assert metric(server, "slipway_upstreams_not_ready{") == 1
    fake.ready = 200
    wait_until(lambda: control.state("2").get("state") == "ready")
    assert "2" in versions()


def test_requests_at_an_upstream_are_answered_when_its_deployment_is_taken_away(
    serve: Serve, control: ControlPlane, fake: FakeUpstream, tmp_path: Path
) -> None:
    server = start(serve, control, tmp_path, forwarded("2", fake.url, 100, timeout_s=60)).wait_ready("m")
    go_on, answer = threading.Event(), fake.answers
    fake.answers = lambda body: answer(body) if go_on.wait(60) else (500, {}, b"")
    with ThreadPoolExecutor(4) as pool:
        url = f"{server.url}/v2/models/m/infer"
        asked = [pool.submit(httpx.post, url, json={"inputs": [rows()]}, timeout=60) for _ in range(4)]
        wait_until(lambda: fake.running == 4)
        control.publish(endpoint("m", deployment("3", control.add(models.classifier()))))
        path = "/v2/models/m/versions/3/ready"
        wait_until(lambda: server.client.get(path).status_code == 200)
        assert server.infer("m", rows()).json()["model_version"] == "3"
        go_on.set()
        assert [one.result().json()["model_version"] for one in asked] == ["2"] * 4


def test_upstream_and_its_connections_outlive_a_table_as_long_as_one_uses_them() -> None:
    def table(shared: Shared, **spec: Any) -> Table:
        (wish,) = parse_document({
            "generation": 1, "endpoints": [endpoint("m", forwarded("1", "http://127.0.0.1:9", 100, **spec))]
        }).endpoints  # fmt: skip
        placed = Deployment("m", wish.deployments[0], None)
        placed.upstream = shared.upstream(wish.deployments[0].upstream)
        return Table(1, {"m": Endpoint(wish, [placed], shared)})

    shared = Shared()
    first = table(shared)
    assert shared.forget(first) == []
    assert table(shared).endpoints["m"].live[0].upstream is first.endpoints["m"].live[0].upstream
    other = table(shared, model="other")
    assert [upstream.spec.model for upstream in shared.forget(other)] == ["tiny"]
    assert [upstream.spec.model for upstream in shared.forget(Table(2, {}))] == ["other"]


def test_limits_of_an_endpoint_hold_for_what_is_forwarded(
    serve: Serve, control: ControlPlane, fake: FakeUpstream, tmp_path: Path
) -> None:
    fake.answers = slowly(0.2)
    limits = {"concurrency": 2, "queue": 2}
    server = start(serve, control, tmp_path, forwarded("2", fake.url, 100), limits=limits).wait_ready("m")
    gate = threading.Barrier(12)

    def ask(_: int) -> httpx.Response:
        gate.wait()
        return httpx.post(f"{server.url}/v2/models/m/infer", json={"inputs": [rows()]}, timeout=30)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    codes = Counter(answer.status_code for answer in answers)
    assert fake.most == 2 and codes[200] >= 4 and codes[503] and set(codes) == {200, 503}
    assert metric(server, "slipway_inferences_rejected_total") == codes[503]
    assert server.infer("m", rows()).status_code == 200


def test_refusals_count_against_an_upstream_that_takes_other_inputs_than_its_sibling(
    serve: Serve, control: ControlPlane, fake: FakeUpstream, tmp_path: Path
) -> None:
    fake.answers = lambda _: (400, {}, b'{"error": "unexpected input"}')
    local = deployment("1", control.add(models.classifier()), weight=50)
    server = start(serve, control, tmp_path, local, forwarded("2", fake.url, 50)).wait_ready("m")

    def refused(version: str) -> bool:
        path = f"/v2/models/m/versions/{version}/infer"
        return server.client.post(path, json={"inputs": [rows()]}).status_code == 400

    assert all(refused("2") for _ in range(3))
    fake.inputs = [{"name": "other", "datatype": "FP32", "shape": [-1, 9]}]
    control.publish(endpoint("m", local, forwarded("3", fake.url, 50, version="5")))
    wait_until(lambda: control.state("3").get("state") == "ready")
    assert all(refused("3") for _ in range(4))
    wait_until(lambda: errors(control) >= 4)
    assert errors(control) == 4, "the first three fitted the same signature: they were the client's"


@pytest.mark.parametrize(
    "spec",
    [
        {"url": "http://[::1"},
        {"url": "http://h:99999"},
        {"url": "http://h:0"},
        {"url": "http://user@h"},
        {"url": "http://h?q"},
        {"url": "http://h#f"},
        {"url": "http://h\n"},
        {"url": "http://h h"},
        {"url": "http://ü"},
        {"url": "gopher://h"},
        {"url": "http://"},
        {"url": "http:///x"},
        {"url": 5},
        {"url": "http://h", "model": "../../admin"},
        {"url": "http://h", "model": ".."},
        {"url": "http://h", "model": ""},
        {"url": "http://h", "version": "a/b"},
        {"url": "http://h", "timeout_s": float("nan")},
        {"url": "http://h", "timeout_s": 0},
        {"url": "http://h", "timeout_s": True},
    ],
)
def test_document_is_refused_when_its_upstream_is_none(spec: dict[str, Any]) -> None:
    placed = forwarded("1", "", 100)
    placed["upstream"] = {"model": "m", **spec}
    with pytest.raises(DocumentError, match="upstream"):
        parse_document({"generation": 1, "endpoints": [endpoint("m", placed)]})
