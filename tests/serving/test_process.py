"""Processes: a killed child, a drain, a busy port, slow clients, what is imported."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.serving import models
from tests.serving.conftest import ROOT, Server, alive, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.models import rows

Serve = Callable[..., Server]


def test_server_keeps_answering_when_a_child_is_killed(serve: Serve, model_folder: Path) -> None:
    server = serve("--models", str(model_folder), processes=2).wait_ready("tiny")
    wait_until(lambda: len(server.children()) == 2)
    before = server.children()
    failures = 0
    for turn in range(4):
        victim = server.children()[turn % 2]
        os.kill(victim, signal.SIGKILL)
        for _ in range(50):
            try:
                with httpx.Client(base_url=server.url) as client:
                    answer = client.post("/v2/models/tiny/infer", json={"inputs": [rows()]})
                assert answer.status_code == 200
            except httpx.TransportError:
                failures += 1  # cut off by the kill itself, or in the dead one's queue
        wait_until(lambda v=victim: len(server.children()) == 2 and v not in server.children())
    assert failures <= 8
    assert not set(before) & set(server.children())


def test_counters_never_go_back_when_a_child_is_killed(serve: Serve, model_folder: Path) -> None:
    server = serve("--models", str(model_folder)).wait_ready("tiny")

    def counted() -> float:
        text = server.client.get("/metrics").text
        lines = [line for line in text.splitlines() if line.startswith("slipway_inferences_total{")]
        return sum(float(line.split()[-1]) for line in lines)

    for _ in range(10):
        server.infer("tiny", rows())
    time.sleep(1.3)  # a snapshot is written every second
    (victim,) = server.children()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: server.children() not in ([victim], []))
    server.wait_ready("tiny")
    assert counted() == 10


def test_requests_in_flight_finish_when_terminated(serve: Serve, model_folder: Path) -> None:
    server = serve("--models", str(model_folder)).wait_ready("slow")
    answers: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            body = {"inputs": [rows()]}
            answers.append(client.post("/v2/models/slow/infer", json=body).status_code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()

    def inflight() -> bool:
        text = server.client.get("/metrics").text
        return 'slipway_inflight_requests{process="0"} 6.0' in text

    wait_until(inflight)
    assert server.stop() == 0
    for thread in threads:
        thread.join()
    assert answers == [200] * 6


def test_server_ends_when_a_client_holds_an_unfinished_request(serve: Serve, model_folder: Path) -> None:
    server = serve("--models", str(model_folder), "--drain-s", "1").wait_ready("tiny")
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.2)
        assert server.infer("tiny", rows()).status_code == 200
        assert server.stop() == 0


def test_children_end_when_the_parent_is_killed(serve: Serve, model_folder: Path) -> None:
    server = serve("--models", str(model_folder), processes=2).wait_ready("tiny")
    children = server.children()
    assert len(children) == 2
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not any(alive(pid) for pid in children))


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serving", *args],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SLIPWAY_GRPC_PORT": "off"},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_server_says_so_in_one_sentence_when_the_port_is_busy(standalone: Server, model_folder: Path) -> None:
    port = standalone.url.rsplit(":", 1)[1]
    done = run("--models", str(model_folder), "--port", port)
    assert done.returncode == 1
    assert done.stderr.strip() == f"serving: port {port} on 127.0.0.1 is already in use."


def test_server_says_so_in_one_sentence_when_options_cannot_work(tmp_path: Path) -> None:
    for args in (["--models", str(tmp_path / "none")], ["--port", "x"], [], ["--processes", "0"]):
        done = run(*args)
        assert done.returncode == 2 and done.stderr.startswith("serving: "), done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_others_are_served_when_clients_are_slow_or_silent(standalone: Server) -> None:
    port = int(standalone.url.rsplit(":", 1)[1])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    for number, sock in enumerate(silent):
        if number % 2:
            sock.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nContent-Le")
        else:
            sock.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nContent-Length: 9999\r\n\r\n[1")
    assert standalone.infer("tiny", rows()).status_code == 200
    for sock in silent:
        sock.close()
    assert standalone.infer("tiny", rows()).status_code == 200


def test_head_is_refused_when_it_never_ends(standalone: Server) -> None:
    port = int(standalone.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(10)
        sock.sendall(b"GET /v2 HTTP/1.1\r\n")
        answer = b""
        try:
            for _ in range(200):
                sock.sendall(b"X-A: " + b"a" * 1000 + b"\r\n")
            answer = sock.recv(100)
        except OSError:
            answer = b"closed"
        assert answer == b"closed" or answer.startswith((b"HTTP/1.1 4", b"")), answer
    assert standalone.infer("tiny", rows()).status_code == 200


def test_old_or_new_answers_when_killed_in_a_swap(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    data = [control.add(models.constant(n)) for n in range(4)]
    control.publish(endpoint("m", deployment("0", data[0])))
    server = serve("--home", str(tmp_path), "--control-url", control.url, processes=2).wait_ready("m")
    wait_until(lambda: control.observed(1, 2))
    for n in range(1, 4):
        control.publish(endpoint("m", deployment(str(n), data[n])))
        time.sleep(0.02 * n)
        victim = server.children()[n % 2]
        os.kill(victim, signal.SIGKILL)
        for _ in range(20):
            try:
                with httpx.Client(base_url=server.url) as client:
                    answer = client.post("/v2/models/m/infer", json={"inputs": [rows()]})
                assert answer.status_code == 200, answer.text
                assert answer.json()["outputs"][0]["data"][0] in (n - 1, n)
            except httpx.TransportError:
                pass
        wait_until(lambda v=victim: len(server.children()) == 2 and v not in server.children())
        wait_until(lambda g=n: control.observed(g + 1, 2))


def test_nothing_of_the_control_plane_is_imported_when_serving_is() -> None:
    code = (
        "import pkgutil, importlib, sys, serving\n"
        "for m in pkgutil.walk_packages(serving.__path__, 'serving.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "import serving.__main__\n"
        "heads = {name.split('.')[0] for name in sys.modules}\n"
        "bad = {'django','rest_framework','celery','psycopg2','slipway','registry','deployments',"
        "'monitoring','workers','torch','onnx'} & heads\n"
        "ours = {n for n in sys.modules if n.startswith('engine.') and not n.startswith('engine.formats')}\n"
        "print(sorted(bad | ours))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
