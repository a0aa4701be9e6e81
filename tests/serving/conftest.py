"""Real servers, real models, and a small real control plane for the tests of the inference server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving import models
from tests.serving.control_plane import ControlPlane
from tests.serving.fake_upstream import FakeUpstream

ROOT = Path(__file__).resolve().parents[2]


def alive(pid: int) -> bool:
    """Not ended; one that nobody has reaped yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it goes while it is read
        return False


def wait_until(condition: Callable[[], object], seconds: float = 20, what: str = "") -> None:
    """Poll until a condition holds; a refused connection counts as not yet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.03)
    raise AssertionError(f"did not happen within {seconds} s: {what or condition}")


class Server:
    """One `python -m serving` with its own port."""

    def __init__(self, *args: str, processes: int = 1, env: dict[str, str] | None = None) -> None:
        self.processes = processes
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SLIPWAY_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serving", "--port", "0", "--processes", str(processes), *args],
            cwd=ROOT,
            # Without gRPC, unless a test asks for its port.
            env={
                **clean,
                "PYTHONPATH": str(ROOT),
                "SLIPWAY_SERVING_TOKEN": "serving-secret",
                "SLIPWAY_GRPC_PORT": "off",
                **(env or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stderr: list[str] = []
        line = self.process.stdout.readline()
        threading.Thread(target=self._drain, daemon=True).start()
        assert "listening on" in line, (line, "".join(self.stderr))
        self.url = line.split()[-1]
        self.grpc = ""  # host and port, where the server was started with --grpc-port
        if "--grpc-port" in args:
            self.grpc = self.process.stdout.readline().split("://")[-1].strip()
        self.client = httpx.Client(base_url=self.url, timeout=20)

    def _drain(self) -> None:
        for line in self.process.stderr:
            self.stderr.append(line)

    def wait_ready(self, model: str | None = None) -> Server:
        path = f"/v2/models/{model}/ready" if model else "/v2/health/ready"
        wait_until(
            lambda: self.client.get(path).status_code == 200,
            what=f"{path} of the server\n{''.join(self.stderr)}",
        )
        return self

    def infer(self, model: str, *inputs: dict, headers: dict | None = None, **more: object) -> httpx.Response:
        return self.client.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **more}, headers=headers)

    def children(self) -> list[int]:
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(word) for word in text.split()]

    def listeners(self) -> int:
        """How many sockets listen on the port: a process that was only started does not answer yet."""
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        port = httpx.URL(self.url).port
        return sum(words[3] == "0A" and words[1].endswith(f":{port:04X}") for words in lines)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.client.close()
        return code


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*args: str, **more: object) -> Server:
        server = Server(*args, **more)
        started.append(server)
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    models.write_all(folder)
    return folder


@pytest.fixture(scope="session")
def standalone(model_folder: Path) -> Iterator[Server]:
    """A server over the folder of all test models, shared by the tests that only ask."""
    server = Server("--models", str(model_folder), "--max-body-mb", "4")
    yield server.wait_ready()
    server.stop()


@pytest.fixture
def control() -> Iterator[ControlPlane]:
    plane = ControlPlane()
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    upstream = FakeUpstream()
    yield upstream
    upstream.stop()
