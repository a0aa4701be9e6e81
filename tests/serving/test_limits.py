"""Quotas, queue limits, stickiness: what an endpoint's settings do."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.compute import Cores
from serving.dataplane import Dataplane
from serving.limits import Gate, Ledger, Quota
from serving.metrics import Snapshots
from serving.options import parse_options
from serving.protocol.errors import ServingError
from serving.runtime import Runtime
from serving.table import Deployment, Endpoint, Shared, Table
from tests.serving import models
from tests.serving.conftest import ROOT, Server, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.inside import endpoint_of, model_of, request
from tests.serving.models import rows
from tests.serving.test_upstream import metric

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


def test_key_of_the_named_header_gets_the_same_deployment_after_a_restart(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    placed = [deployment(str(i), control.add(models.constant(i)), 25) for i in (1, 2, 3, 4)]
    server = start(serve, control, tmp_path, *placed, sticky_header="x-user").wait_ready("m")

    def given(server: Server) -> list[str]:
        users = [{"x-user": f"user {number}"} for number in range(40)]
        return [server.infer("m", rows(), headers=user).json()["model_version"] for user in users]

    before = given(server)
    assert set(before) == {"1", "2", "3", "4"} and given(server) == before
    server.stop()
    again = serve("--home", str(tmp_path), "--control-url", control.url, processes=2).wait_ready("m")
    assert given(again) == before


def quota_of(ledger: Ledger, rate: float, burst: int, key: bytes = b"k" * 20) -> Quota:
    return Quota(ledger, key, rate, burst)


def passed(quota: Quota, tries: int = 100) -> int:
    count = 0
    for _ in range(tries):
        try:
            quota.take()
        except ServingError as error:
            assert error.status == 429 and int(dict(error.headers)[b"retry-after"]) >= 1
        else:
            count += 1
    return count


def test_quota_is_one_for_all_processes_that_share_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr("serving.limits.time.monotonic", lambda: now)
    one, two = (quota_of(Ledger(tmp_path / "quotas"), 10, 5) for _ in range(2))
    assert passed(one, 3) + passed(two) == 5
    total = 0
    for step in range(1000):
        now += 0.013
        total += passed((one, two)[step % 2], 2)
    assert abs(total - 130) <= 2


def test_quota_holds_over_real_processes_within_five_percent(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from serving.limits import Ledger, Quota\n"
        "from serving.protocol.errors import ServingError\n"
        "quota = Quota(Ledger(Path(sys.argv[1])), b'k' * 20, 0.001, 4000)\n"
        "sys.stdin.readline()\n"
        "count = 0\n"
        "for _ in range(20000):\n"
        "    try:\n"
        "        quota.take()\n"
        "        count += 1\n"
        "    except ServingError:\n"
        "        pass\n"
        "print(count)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "quotas")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    counts = [int(process.communicate("go\n", timeout=60)[0]) for process in processes]
    assert 4000 <= sum(counts) <= 4200, counts


def test_quota_that_is_raised_owes_nothing_of_the_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr("serving.limits.time.monotonic", lambda: now)
    ledger = Ledger(None)
    assert passed(quota_of(ledger, 0.001, 20)) == 20  # twenty thousand seconds' worth
    raised = quota_of(ledger, 10, 5)
    assert passed(raised) == 0
    now += 0.11
    assert passed(raised) == 1
    now += 0.5
    assert passed(raised) == 5
    lowered = quota_of(ledger, 1, 1)
    now += 1.1
    assert passed(lowered) == 1


def test_other_tokens_have_quotas_of_their_own_in_a_full_ledger() -> None:
    ledger = Ledger(None)
    quotas = [quota_of(ledger, 0.001, 1, number.to_bytes(8, "little") * 2) for number in range(1, 3000)]
    clash = [quota_of(ledger, 0.001, 1, (7 + (n << 16)).to_bytes(8, "little")) for n in range(1, 50)]
    assert all(passed(quota, 2) == 1 for quota in (*quotas, *clash))


def test_new_token_works_and_the_old_one_does_not_when_it_is_rotated(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    def publish(token: str) -> int:
        placed = endpoint("m", deployment("1", control.add(models.classifier())), tokens=[token])
        placed["tokens"] = [{"sha256": placed["tokens"][0], "rate": 0.001, "burst": 3}]
        return control.publish(placed)

    publish("old")
    server = serve("--home", str(tmp_path), "--control-url", control.url).wait_ready()

    def codes(token: str, count: int) -> list[int]:
        headers = {"authorization": f"Bearer {token}"}
        return [server.infer("m", rows(), headers=headers).status_code for _ in range(count)]

    assert codes("old", 5) == [200, 200, 200, 429, 429] and codes("new", 1) == [403]
    generation = publish("new")
    wait_until(lambda: control.observed(generation))
    assert codes("old", 1) == [403] and codes("new", 5) == [200, 200, 200, 429, 429]
    assert "slipway_requests_over_quota_total 4.0" in server.client.get("/metrics").text


def test_gate_is_the_same_in_the_next_table_unless_its_limits_change() -> None:
    model = model_of(models.classifier())
    shared = Shared()

    def gate(limits: tuple[int, int] | None) -> Gate | None:
        spec = replace(endpoint_of(model).spec, limits=limits)
        placed = Endpoint(spec, [Deployment("m", p, model) for p in spec.deployments], shared)
        shared.forget(Table(1, {"m": placed}))
        return placed.live[0].gate

    first = gate((1, 2))
    assert first is not None and gate((1, 2)) is first
    assert gate((1, 3)) is not first and gate(None) is None
    shared.forget(Table(2, {}))
    assert gate((1, 2)) is not first


def test_places_come_back_whatever_becomes_of_a_call(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    placed = deployment("1", control.add(models.slow(300)))
    limits = {"concurrency": 1, "queue": 2}
    server = start(serve, control, tmp_path, placed, limits=limits).wait_ready("m")
    address = httpx.URL(server.url)
    body = json.dumps({"inputs": [rows()]}).encode()
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
    for _ in range(4):
        gone = [socket.create_connection((address.host, address.port), 20) for _ in range(3)]
        for connection in gone:
            connection.sendall(head + body)
        for connection in gone:
            connection.close()  # without waiting for its answer
        for wrong in ({**rows(), "datatype": "INT64"}, {**rows(), "shape": [1, 5]}, {**rows(), "data": []}):
            assert server.infer("m", wrong).status_code == 400
        wait_until(lambda: metric(server, "slipway_inflight_requests{") == 0)

    def ask(_: int) -> int:
        return httpx.post(f"{server.url}/v2/models/m/infer", json={"inputs": [rows()]}, timeout=60).status_code

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, range(3))) == [200] * 3, "three have places"


def test_concurrency_is_never_exceeded_over_new_tables_and_errors(tmp_path: Path) -> None:
    async def run() -> None:
        runtime = Runtime(parse_options(["--models", str(tmp_path)], {}), 0, Snapshots(tmp_path, 0), Cores(4, 1))
        dataplane = Dataplane(runtime, asyncio.get_running_loop())
        model = model_of(models.lookup())
        lock, running, most = threading.Lock(), 0, 0
        plain = model.run

        def counted(names: list[str], feeds: Any) -> Any:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.001)
            try:
                return plain(names, feeds)
            finally:
                with lock:
                    running -= 1

        model.run = counted  # type: ignore[method-assign]
        spec = replace(endpoint_of(model).spec, limits=(2, 30))

        def table(generation: int) -> Table:
            made = [Deployment("m", p, model) for p in spec.deployments]
            return Table(generation, {"m": Endpoint(spec, made, runtime.shared)})

        codes: Counter[int] = Counter()
        asked = 0

        def finish(call: Any) -> None:
            codes[200 if call.error is None else call.error.status] += 1

        for generation in range(30):
            runtime.swap(table(generation))
            endpoint_ = runtime.table.endpoints["m"]
            for number in range(20):
                index = 99 if number % 5 == 0 else 1
                tensor = {"name": "i", "datatype": "INT64", "shape": [1], "data": [index]}
                text = json.dumps({"inputs": [tensor]}) + " " * (70_000 if number % 3 == 0 else 0)
                dataplane.infer(request(endpoint_, text.encode(), finish))
                asked += 1
            await asyncio.sleep(0.004)
        async with asyncio.timeout(30):
            while codes.total() < asked:
                await asyncio.sleep(0.01)
        assert most == 2 and set(codes) == {200, 500, 503}
        gate = runtime.table.endpoints["m"].live[0].gate
        assert gate is not None and gate._inside == 0

    asyncio.run(run())
