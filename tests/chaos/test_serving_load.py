"""The inference server under load while processes are killed and stopped, and while thousands hold connections."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serving import models
from tests.serving.conftest import Server, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.load import Answer, Connection, Load, port_of, post, pressure, resident
from tests.serving.models import rows

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
Serve = Callable[..., Server]
GOOD = post("tiny")


def label(answer: Answer) -> int:
    return json.loads(answer.body)["outputs"][0]["data"][0]


def kill_and_wait(server: Server, number: int, sig: signal.Signals) -> None:
    wait_until(lambda: len(server.children()) == 2 and server.listeners() == 2, 60)
    victim = server.children()[number % 2]
    os.kill(victim, sig)
    wait_until(lambda: victim not in server.children() and server.listeners() == 2, 60)
    time.sleep(0.5)  # the new one takes its share meanwhile


@pytest.mark.parametrize("retries", [0, 1])
def test_few_fail_and_none_with_a_retry_when_a_process_is_killed(
    serve: Serve,
    model_folder: Path,
    retries: int,
) -> None:
    server = serve("--models", str(model_folder), processes=2).wait_ready("tiny")
    kills = 2
    with pressure(server.url, "tiny", 2), Load(server.url, GOOD, value=label, clients=4, retries=retries) as load:
        for turn in range(kills):
            kill_and_wait(server, turn, signal.SIGKILL)
        wait_until(lambda: len(load.seen) > 1000 * (1 + len(load.failures)), 60)
    print(f"\n{kills} kills: {len(load.failures)} of {len(load.seen)} failed, {load.retried} retried")
    assert len(load.failures) <= (0 if retries else 4 * kills)
    assert len(load.failures) <= len(load.seen) / 1000
    assert len(load.values) == 1


def test_none_fail_when_one_of_two_processes_is_asked_to_leave(serve: Serve, model_folder: Path) -> None:
    server = serve("--models", str(model_folder), processes=2).wait_ready("tiny")
    with Load(server.url, GOOD, value=label, clients=6) as load:
        for turn in range(2):
            kill_and_wait(server, turn, signal.SIGTERM)
    print(f"\n{len(load.failures)} of {len(load.seen)} failed")
    assert load.failures == []


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_none_fail_when_the_server_is_stopped_and_clients_leave_as_told(
    serve: Serve,
    model_folder: Path,
    sig: signal.Signals,
) -> None:
    server = serve("--models", str(model_folder), processes=2).wait_ready("tiny")
    with Load(server.url, GOOD, value=label, clients=8, leaves=True) as load:
        wait_until(lambda: len(load.seen) > 500)
        # To all of them, as a terminal does it.
        for pid in (server.process.pid, *(server.children() if sig != signal.SIGTERM else ())):
            os.kill(pid, sig)
        assert server.process.wait(30) == 0
    assert load.failures == [] and len(load.seen) > 500


def test_server_ends_within_its_limit_when_a_request_hangs(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "calm.onnx").write_bytes(models.classifier())
    (tmp_path / "m.onnx").write_bytes(models.hanging(100))
    server = serve("--models", str(tmp_path), "--drain-s", "1").wait_ready("calm")
    with Connection(port_of(server.url)) as client:
        client.send(post("m", {"inputs": [{**rows(), "data": [1000.0] * 4}]}))
        time.sleep(0.5)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        assert time.monotonic() - begun < 30


@pytest.fixture
def many_files() -> Iterator[int]:
    """How many connections this process may have, beside some files; as many as it needs where that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 12_000
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted), hard), hard))
    yield min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_cost_little_and_are_let_go_when_there_are_ten_thousand(
    serve: Serve,
    model_folder: Path,
    many_files: int,
) -> None:
    server = serve("--models", str(model_folder), "--keep-alive-s", "12", "--read-s", "12").wait_ready("tiny")
    (pid,) = server.children()
    before, files = resident(pid), len(os.listdir(f"/proc/{pid}/fd"))
    idle: list[Connection] = []
    with Load(server.url, GOOD, value=label, clients=2, pause=0.005) as load:
        for number in range(many_files):
            client = Connection(port_of(server.url))
            if number % 2 == 0:
                assert client.ask(GOOD).status == 200
            idle.append(client)
        grown = resident(pid) - before
        count = len(load.seen)
        wait_until(lambda: len(load.seen) > count + 50)
        # Those that asked rest too long, those that never did take too long for their head.
        wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < files + 20, 90)
    print(f"\n{many_files} idle connections: {grown / many_files:.0f} bytes each")
    for client in idle:
        client.close()
    assert load.failures == [] and len(load.values) == 1
    assert grown / many_files < 20_000


def test_others_are_answered_when_two_thousand_send_a_byte_a_second(
    serve: Serve,
    model_folder: Path,
    many_files: int,
) -> None:
    server = serve("--models", str(model_folder), "--read-s", "4").wait_ready("tiny")
    (pid,) = server.children()
    before = resident(pid)
    count = min(2000, many_files)
    start = [b"POST /v2/models/tiny/infer HTTP/1.1\r\nX-A: ", GOOD.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"]
    with Load(server.url, GOOD, value=label, clients=2, pause=0.005) as load:
        slow = [Connection(port_of(server.url)) for _ in range(count)]
        for number, client in enumerate(slow):
            client.send(start[number % 2])
        left, end = list(slow), time.monotonic() + 60
        while left and time.monotonic() < end:
            time.sleep(1)
            for client in list(left):
                try:
                    client.send(b" ")
                except ConnectionError:
                    left.remove(client)
    print(
        f"\n{count} slow clients: {(resident(pid) - before) / count:.0f} bytes each, {len(load.seen)} others answered"
    )
    assert left == [] and load.failures == [] and len(load.seen) > 50
    assert resident(pid) - before < 64 << 20


def test_others_are_answered_again_when_a_quick_model_hangs_on_some_input(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "calm.onnx").write_bytes(models.classifier())
    (tmp_path / "m.onnx").write_bytes(models.hanging(100))
    server = serve("--models", str(tmp_path)).wait_ready("calm")
    poison, good = (post("m", {"inputs": [{**rows(), "data": [value] * 4}]}) for value in (1000.0, 1.0))
    with Connection(port_of(server.url)) as client, Connection(port_of(server.url)) as other:
        assert other.ask(good).status == 200
        client.send(poison)
        time.sleep(0.2)
        other.send(post("calm"))
        assert client.read().status == 500
        assert other.read().status == 200
        # From now on it can hold up itself only.
        client.send(poison)
        for _ in range(20):
            assert other.ask(post("calm")).status == 200


def test_old_version_answers_when_the_trial_run_of_the_new_one_hangs(
    serve: Serve,
    control: ControlPlane,
    tmp_path: Path,
) -> None:
    old = deployment("1", control.add(models.constant(1)))
    control.publish(endpoint("m", old))
    server = serve("--home", str(tmp_path), "--control-url", control.url, processes=2).wait_ready("m")
    wait_until(lambda: control.observed(1, 2))
    with Load(server.url, post("m"), clients=3, pause=0.005) as load:
        # At once with zeros, for ever with anything else.
        control.publish(endpoint("m", deployment("2", control.add(models.hanging(0)))))
        wait_until(lambda: control.state("2").get("state") == "failed", 60)
        assert "trial run" in control.state("2")["reason"]
        generation = control.publish(endpoint("m", deployment("3", control.add(models.constant(3)))))
        wait_until(lambda: control.observed(generation, 2), 90)
        wait_until(lambda: "3" in load.values)
    assert load.failures == [] and load.values == {"1", "3"}
