"""Following the control plane: changes under load, refusals, absence, tokens, shadows."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import models
from tests.serving.conftest import Server, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.models import rows

Serve = Callable[..., Server]


def follow(serve: Serve, control: ControlPlane, home: Path, processes: int = 1) -> Server:
    return serve("--home", str(home), "--control-url", control.url, processes=processes)


def value(server: Server, model: str = "m", **headers: str) -> float:
    answer = server.infer(model, rows(), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"][0]


class Load:
    """Threads that keep asking, on kept and on new connections, and note every answer."""

    def __init__(self, url: str, threads: int = 4) -> None:
        self.answers: Counter[object] = Counter()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(url,)) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def _ask(self, url: str) -> None:
        with httpx.Client(base_url=url, timeout=20) as client:
            while not self.stopping.is_set():
                try:
                    answer = client.post("/v2/models/m/infer", json={"inputs": [rows()]})
                    good = answer.status_code == 200
                    key = answer.json()["outputs"][0]["data"][0] if good else answer.text
                except httpx.HTTPError as error:
                    key = repr(error)
                self.answers[key] += 1

    def stop(self) -> Counter[object]:
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        return self.answers


def test_requests_never_fail_when_versions_and_weights_change_under_load(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    data = {n: control.add(models.constant(n)) for n in range(6)}
    control.publish(endpoint("m", deployment("0", data[0])))
    server = follow(serve, control, tmp_path, processes=2).wait_ready("m")
    wait_until(lambda: control.observed(1, 2))
    load = Load(server.url)
    wait_until(lambda: load.answers[0.0])
    for n in range(1, 6):
        generation = control.publish(
            endpoint("m", deployment(str(n - 1), data[n - 1], 50), deployment(str(n), data[n], 50))
        )
        wait_until(lambda g=generation: control.observed(g, 2))
        generation = control.publish(endpoint("m", deployment(str(n), data[n])))
        wait_until(lambda g=generation: control.observed(g, 2))
    answers = load.stop()
    assert set(answers) == {float(n) for n in range(6)}, answers
    assert value(server) == 5.0
    # Each artifact is downloaded once, however many processes want it.
    assert max(Counter(control.downloads).values()) == 1
    assert control.tokens_seen == {"Bearer serving-secret"}


def test_old_version_keeps_answering_when_the_new_artifact_is_corrupt(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    old, new = control.add(models.constant(1)), models.constant(2)
    control.publish(endpoint("m", deployment("1", old)))
    server = follow(serve, control, tmp_path).wait_ready("m")
    bad = deployment("2", new)
    control.artifacts[bad["artifact"]["sha256"]] = new[:-1] + b"\x00"
    load = Load(server.url, threads=2)
    control.publish(endpoint("m", bad))
    wait_until(lambda: control.observed(2))
    assert value(server) == 1.0
    states = control.states()[0]
    assert states["2"]["state"] == "failed" and "corrupt" in states["2"]["reason"]
    assert states["1"]["state"] == "ready"
    # What is kept on disk is what is served: a restart without a control plane finds it.
    saved = json.loads((tmp_path / "state.json").read_text())
    assert [d["id"] for d in saved["endpoints"][0]["deployments"]] == ["1"]
    # Once the bytes are right it comes by itself.
    control.add(new)
    wait_until(lambda: value(server) == 2.0)
    wait_until(lambda: load.answers[2.0], what="the new version in the load's own answers")
    assert set(load.stop()) == {1.0, 2.0}


def test_ort_file_takes_over_when_its_onnx_answered_before(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    from engine.export.ort_exporter import OrtExporter

    onnx_file, ort_file = tmp_path / "model.onnx", tmp_path / "model.ort"
    onnx_file.write_bytes(models.constant(2))
    OrtExporter().wrap(onnx_file, ort_file, {}, OrtExporter.Options())
    old, new = control.add(models.constant(1)), control.add(ort_file.read_bytes())
    control.publish(endpoint("m", deployment("1", old)))
    server = follow(serve, control, tmp_path).wait_ready("m")
    assert value(server) == 1.0
    control.publish(endpoint("m", deployment("2", new, form="ort")))
    wait_until(lambda: value(server) == 2.0)
    wait_until(lambda: control.state("2").get("state") == "ready")


def test_old_version_keeps_answering_when_the_new_one_is_no_model(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    old, bad = control.add(models.constant(1)), control.add(b"\x80\x04not a model at all")
    control.publish(endpoint("m", deployment("1", old)))
    server = follow(serve, control, tmp_path).wait_ready("m")
    control.publish(endpoint("m", deployment("2", bad, 30), deployment("1", old, 70)))
    wait_until(lambda: control.observed(2))
    assert {value(server) for _ in range(20)} == {1.0}
    assert "refused the model" in control.states()[0]["2"]["reason"]


def test_weights_still_change_when_only_a_shadow_or_spare_fails(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    a, b = control.add(models.constant(1)), control.add(models.constant(2))
    control.publish(endpoint("m", deployment("1", a)))
    server = follow(serve, control, tmp_path).wait_ready("m")
    missing = deployment("9", models.constant(9), 0, "warm")
    control.publish(endpoint("m", deployment("2", b), missing))
    wait_until(lambda: value(server) == 2.0)
    wait_until(lambda: control.state("9").get("state") == "failed")


def test_document_is_refused_whole_when_weights_do_not_sum(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    a, b = control.add(models.constant(1)), control.add(models.constant(2))
    control.publish(endpoint("m", deployment("1", a)))
    server = follow(serve, control, tmp_path).wait_ready("m")
    control.publish(endpoint("other", deployment("3", b)), endpoint("m", deployment("2", b, 90)))
    wait_until(lambda: control.state("2"))
    assert control.observed(1)
    states = control.states()[0]
    assert "sum to 90" in states["2"]["reason"] and states["2"]["state"] == "failed"
    assert states["1"]["state"] == "ready" and "refused" in states["1"]["reason"]
    assert value(server) == 1.0
    assert server.client.get("/v2/models/other").status_code == 404
    control.publish(endpoint("m", deployment("2", b)))
    wait_until(lambda: value(server) == 2.0)


def test_saved_state_serves_when_the_control_plane_is_down_at_start(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    data = control.add(models.constant(1))
    control.publish(endpoint("m", deployment("1", data)))
    first = follow(serve, control, tmp_path).wait_ready("m")
    wait_until(lambda: (tmp_path / "state.json").exists())
    assert first.stop() == 0
    control.stop()
    server = follow(serve, control, tmp_path).wait_ready("m")
    assert value(server) == 1.0
    assert 'control_plane_staleness_seconds{process="0"}' in server.client.get("/metrics").text
    new = control.add(models.constant(2))
    control.publish(endpoint("m", deployment("2", new)))
    control.start()
    wait_until(lambda: value(server) == 2.0)


def test_cached_artifact_is_put_aside_when_a_bit_flipped(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    data = control.add(models.constant(1))
    placed = deployment("1", data)
    control.publish(endpoint("m", placed))
    first = follow(serve, control, tmp_path).wait_ready("m")
    wait_until(lambda: (tmp_path / "state.json").exists())
    first.stop()
    cached = tmp_path / "artifacts" / placed["artifact"]["sha256"]
    cached.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    server = follow(serve, control, tmp_path).wait_ready("m")
    assert value(server) == 1.0
    assert cached.read_bytes() == data and cached.with_suffix(".corrupt").exists()


def test_endpoint_disappears_when_the_document_no_longer_has_it(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    data = control.add(models.constant(1))
    control.publish(endpoint("m", deployment("1", data)), endpoint("gone", deployment("2", data)))
    server = follow(serve, control, tmp_path).wait_ready("gone")
    control.publish(endpoint("m", deployment("1", data)))
    wait_until(lambda: server.client.get("/v2/models/gone").status_code == 404)
    assert value(server) == 1.0


def test_same_key_gets_the_same_deployment_when_weights_grow(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    a, b = control.add(models.constant(1)), control.add(models.constant(2))

    def spread() -> dict[str, float]:
        return {k: value(server, **{"X-Slipway-Key": k}) for k in (f"user-{n}" for n in range(150))}

    control.publish(endpoint("m", deployment("1", a, 80), deployment("2", b, 20)))
    server = follow(serve, control, tmp_path).wait_ready("m")
    before = spread()
    assert before == spread()
    assert 10 < sum(v == 2.0 for v in before.values()) < 60
    control.publish(endpoint("m", deployment("1", a, 40), deployment("2", b, 60)))
    wait_until(lambda: control.observed(2))
    after = spread()
    assert all(after[k] == 2.0 for k, v in before.items() if v == 2.0)
    assert sum(v == 2.0 for v in after.values()) > 60
    ids = {f"r{n}": server.infer("m", rows(), id=f"r{n}").json()["model_version"] for n in range(30)}
    again = {k: server.infer("m", rows(), id=k).json()["model_version"] for k in ids}
    assert ids == again and set(ids.values()) == {"1", "2"}


def test_pinned_version_answers_when_it_is_warm_only(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    a, b = control.add(models.constant(1)), control.add(models.constant(2))
    control.publish(endpoint("m", deployment("10", a, version="3"), deployment("11", b, 0, "warm", "4")))
    server = follow(serve, control, tmp_path).wait_ready("m")
    assert {value(server) for _ in range(10)} == {1.0}
    answer = server.infer("m/versions/4", rows())
    assert answer.headers["x-slipway-deployment"] == "11" and answer.json()["outputs"][0]["data"] == [2.0]


def test_endpoint_is_unavailable_when_it_has_no_live_deployment(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    control.publish(endpoint("m"))
    server = follow(serve, control, tmp_path).wait_ready()
    wait_until(lambda: server.infer("m", rows()).status_code == 503)
    assert server.client.get("/v2/models/m/ready").status_code == 503


def test_token_is_demanded_when_access_is_token(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    data = control.add(models.constant(1))
    control.publish(endpoint("m", deployment("1", data), tokens=["good"]), endpoint("open", deployment("2", data)))
    server = follow(serve, control, tmp_path).wait_ready("open")
    for path in ("", "/ready", "/versions/1"):
        assert server.client.get(f"/v2/models/m{path}").status_code == 401
    assert server.infer("m", rows()).status_code == 401
    assert server.infer("m", rows(), headers={"Authorization": "Basic good"}).status_code == 401
    assert server.infer("m", rows(), headers={"Authorization": "Bearer bad"}).status_code == 403
    good = {"Authorization": "Bearer good"}
    assert server.infer("m", rows(), headers=good).status_code == 200
    assert server.client.get("/v2/models/m", headers=good).status_code == 200
    names = [{e["name"] for e in server.client.post("/v2/repository/index", headers=h).json()} for h in ({}, good)]
    assert names == [{"open"}, {"open", "m"}]
    # A token that is taken away stops working even while a broken deployment holds the routing.
    control.publish(endpoint("m", deployment("8", models.constant(8)), tokens=["other"]))
    wait_until(lambda: server.infer("m", rows(), headers=good).status_code == 403)
    assert value(server, Authorization="Bearer other") == 1.0


def test_shadow_sees_requests_and_harms_none_when_it_fails(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    live = control.add(models.constant(1))
    good = control.add(models.classifier())
    wrong = control.add(models.two_inputs())
    control.publish(
        endpoint(
            "m",
            deployment("1", live),
            deployment("2", good, 0, "shadow"),
            deployment("3", wrong, 0, "shadow"),
        )
    )
    server = follow(serve, control, tmp_path).wait_ready("m")
    assert {value(server) for _ in range(20)} == {1.0}

    def counted(ident: str, field: str) -> int:
        return sum(w[field] for r in control.accepted.values() for w in r["windows"] if w["deployment"] == ident)

    wait_until(lambda: counted("3", "requests") == 20 and counted("2", "requests") == 20)
    assert counted("2", "errors") == 0 and counted("3", "errors") == 20
    assert counted("1", "requests") == 20 and counted("1", "errors") == 0


def test_shadow_drops_copies_when_it_cannot_keep_up(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    live, hanging = control.add(models.constant(1)), control.add(models.slow())
    control.publish(endpoint("m", deployment("1", live), deployment("2", hanging, 0, "shadow")))
    server = follow(serve, control, tmp_path).wait_ready("m")
    assert {value(server) for _ in range(150)} == {1.0}
    text = server.client.get("/metrics").text
    dropped = next(line for line in text.splitlines() if line.startswith("slipway_shadow_requests_dropped_total"))
    assert float(dropped.split()[-1]) > 0


def test_nothing_is_called_ready_before_connections_are_taken(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    port = 0
    refused: list[bool] = []

    def connect(report: dict[str, Any]) -> None:
        if any(one["state"] == "ready" for one in report["deployments"].values()):
            with socket.socket() as client:
                refused.append(client.connect_ex(("127.0.0.1", port)) != 0)

    control.on_report = connect
    control.publish(endpoint("m", deployment("1", control.add(models.constant(1)))))
    # gRPC's door takes time to make, between the first models and the sockets.
    server = serve("--home", str(tmp_path), "--control-url", control.url, "--grpc-port", "0")
    port = int(server.url.rsplit(":", 1)[1])
    wait_until(lambda: refused, what="a report that it is ready")
    assert refused[0] is False


@pytest.mark.parametrize("text", ["", "{", '{"generation": "x"}', "[]"])
def test_server_starts_and_follows_when_its_saved_state_is_damaged(
    serve: Serve, control: ControlPlane, tmp_path: Path, text: str
) -> None:
    (tmp_path / "state.json").write_text(text)
    control.publish(endpoint("m", deployment("1", control.add(models.constant(1)))))
    assert value(follow(serve, control, tmp_path).wait_ready("m")) == 1.0
