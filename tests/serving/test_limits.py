"""Quotas, queue limits, the response cache, stickiness: what an endpoint's settings do."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serving.cache import ResponseCache
from serving.limits import Gate, Ledger, Quota
from serving.protocol.errors import ServingError
from tests.serving import models
from tests.serving.conftest import Server
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.models import rows

Serve = Callable[..., Server]


def start(
    serve: Serve, control: ControlPlane, home: Path, *deployments: dict, processes: int = 1, **more: Any
) -> Server:
    control.publish({**endpoint("m", *deployments), **more})
    return serve("--home", str(home), "--control-url", control.url, processes=processes)


def test_quota_holds_over_all_processes_and_says_when_to_return(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    placed = endpoint("m", deployment("1", control.add(models.classifier())), tokens=["one", "free"])
    limited, free = placed["tokens"]
    placed["tokens"] = [{"sha256": limited, "rate": 0.001, "burst": 20}, free]
    control.publish(placed)
    server = serve("--home", str(tmp_path), "--control-url", control.url, processes=2).wait_ready()
    codes: Counter[int] = Counter()
    for _ in range(60):  # each on a connection of its own: they spread over both processes
        with httpx.Client(base_url=server.url, headers={"authorization": "Bearer one"}) as client:
            answer = client.post("/v2/models/m/infer", json={"inputs": [rows()]})
        codes[answer.status_code] += 1
    assert codes == {200: 20, 429: 40}
    assert int(answer.headers["retry-after"]) > 0 and "quota" in answer.json()["error"]
    # It outlives a new table, and nobody else feels it.
    control.publish(placed)
    assert server.infer("m", rows(), headers={"authorization": "Bearer one"}).status_code == 429
    assert server.infer("m", rows(), headers={"authorization": "Bearer free"}).status_code == 200


def test_quota_lets_so_many_through_again_as_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("serving.limits.time.monotonic", lambda: now)
    quota = Quota(Ledger(None), b"k" * 20, rate=10, burst=3)
    for _ in range(3):
        quota.take()
    with pytest.raises(ServingError) as refused:
        quota.take()
    assert refused.value.status == 429
    now += 0.1
    quota.take()
    with pytest.raises(ServingError):
        quota.take()
    now += 10
    for _ in range(3):
        quota.take()
    with pytest.raises(ServingError):
        quota.take()


def test_gate_is_never_exceeded_and_empty_afterwards() -> None:
    gate = Gate(2, 3)
    inside, most, refused = 0, 0, 0
    lock = threading.Lock()

    def visit(_: int) -> None:
        nonlocal inside, most, refused
        try:
            gate.enter()
        except ServingError as error:
            assert error.status == 503 and dict(error.headers)[b"retry-after"]
            with lock:
                refused += 1
            return
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.001)
        with lock:
            inside -= 1
        gate.leave()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(visit, range(400)))
    assert most <= 5 and inside == 0 and refused
    for _ in range(5):
        gate.enter()


def test_requests_beyond_the_queue_are_refused_with_when_to_return(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    slow = deployment("1", control.add(models.slow()))
    server = start(serve, control, tmp_path, slow, limits={"concurrency": 1, "queue": 1}).wait_ready("m")

    def ask(_: int) -> httpx.Response:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            return client.post("/v2/models/m/infer", json={"inputs": [rows()]})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    codes = Counter(answer.status_code for answer in answers)
    assert set(codes) == {200, 503} and codes[200] >= 2
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 503)
    assert server.infer("m", rows()).status_code == 200  # nothing leaked


def test_cache_answers_the_same_inputs_and_only_those(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    placed = [
        deployment("1", control.add(models.classifier(1)), 50),
        deployment("2", control.add(models.classifier(2)), 50),
    ]
    server = start(serve, control, tmp_path, *placed, cache={"mb": 1, "ttl_s": 600}).wait_ready("m")

    def ask(version: str, row: dict, ident: str) -> Any:
        answer = server.client.post(
            f"/v2/models/m/versions/{version}/infer", json={"inputs": [row], "id": ident}
        ).json()
        assert answer["id"] == ident
        return answer["outputs"]

    first = ask("1", rows(), "a")
    assert ask("1", rows(), "b") == first
    assert ask("2", rows(), "c") != first
    assert ask("1", rows(2), "d") != first
    text = server.client.get("/metrics").text
    assert "slipway_cache_hits_total 1.0" in text and "slipway_cache_misses_total 3.0" in text


def test_cache_stays_within_its_bytes_and_forgets_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("serving.cache.time.monotonic", lambda: now)
    cache = ResponseCache(100_000, 10)
    for number in range(100):
        cache.put(b"%d" % number, [np.zeros(1000, np.float32)])
    assert cache._bytes <= 100_000
    assert cache.get(b"99") is not None and cache.get(b"0") is None
    cache.put(b"huge", [np.zeros(100_000, np.float32)])
    assert cache.get(b"huge") is None and cache.get(b"99") is not None
    now = 11
    assert cache.get(b"99") is None
    strings = np.array(["a", "bc"], dtype=object)
    other = np.array(["ab", "c"], dtype=object)
    assert cache.key("1", ["y"], {"x": strings}) != cache.key("1", ["y"], {"x": other})
    flat = np.zeros((2, 0), np.float32)
    assert cache.key("1", ["y"], {"x": flat}) != cache.key("1", ["y"], {"x": flat.T})


def test_a_key_of_the_named_header_gets_the_same_deployment_in_every_process(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    placed = [
        deployment("1", control.add(models.constant(1)), 50),
        deployment("2", control.add(models.constant(2)), 50),
    ]
    server = start(serve, control, tmp_path, *placed, processes=2, sticky_header="x-user").wait_ready("m")
    given: dict[str, set[str]] = {}
    for _ in range(6):
        with httpx.Client(base_url=server.url) as client:
            for user in map(str, range(12)):
                answer = client.post("/v2/models/m/infer", json={"inputs": [rows()]}, headers={"x-user": user})
                given.setdefault(user, set()).add(answer.json()["model_version"])
    assert all(len(versions) == 1 for versions in given.values())
    assert len(set.union(*given.values())) == 2
