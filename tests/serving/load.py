"""Load whose every answer is looked at: threads with plain sockets, and wrk beside them where it is installed."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.serving.models import rows


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def post(model: str, body: bytes | dict[str, Any] | None = None, **headers: str) -> bytes:
    """The bytes of an inference request."""
    if body is None:
        body = {"inputs": [rows()]}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "Host: test", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closing(self) -> bool:
        return self.headers.get("connection") == "close"


class Connection:
    """A plain socket that understands answers with a length. Raises OSError when it is cut."""

    def __init__(self, port: int, timeout: float = 60) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.held = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self) -> Answer:
        while b"\r\n\r\n" not in self.held:
            self._more()
        head, _, self.held = self.held.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self.held) < length:
            self._more()
        body, self.held = self.held[:length], self.held[length:]
        return Answer(int(first.split()[1]), headers, body)

    def _more(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionResetError("cut")
        self.held += data

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.read()

    def ended(self) -> bool:
        """Whether the server has closed, waiting for it; what it still sends is thrown away."""
        with contextlib.suppress(ConnectionError):
            while self.sock.recv(1 << 16):
                pass
        return True

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Seen:
    """One answer: when it was asked for, when it was there, and what it said."""

    asked: float
    answered: float
    value: Any


def constant_version(answer: Answer) -> str:
    """Of the constant models: the version that is said to have answered, if the value is that version's own."""
    body = json.loads(answer.body)
    version = str(body["model_version"])
    value = f"{body['outputs'][0]['data'][0]:g}"
    if value != version:
        raise ValueError(f"version {version} answered {value}")
    return version


@dataclass
class Load:
    """Clients that never pause. A failure is an answer other than 200, a cut connection or a wrong answer, and
    that after `retries` further tries. A client that `leaves` goes when it is told that the connection closes."""

    url: str
    request: bytes
    value: Callable[[Answer], Any] = constant_version
    clients: int = 4
    retries: int = 0
    leaves: bool = False
    pause: float = 0.0
    seen: list[Seen] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    retried: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in self._threads), "a client waits for ever"

    @property
    def values(self) -> set[Any]:
        return {one.value for one in self.seen}

    def _ask(self) -> None:
        port = port_of(self.url)
        connection: Connection | None = None
        while not self._over.wait(self.pause):
            asked, failure = time.monotonic(), ""
            for _ in range(1 + self.retries):
                if failure:
                    self.retried += 1
                try:
                    connection = connection or Connection(port)
                    answer = connection.ask(self.request)
                    if answer.closing:
                        connection.close()
                        connection = None
                    if answer.status != 200:
                        raise ValueError(f"{answer.status} {answer.body[:200]!r}")
                    self.seen.append(Seen(asked, time.monotonic(), self.value(answer)))
                except (OSError, ValueError, KeyError) as error:
                    failure = repr(error)
                    if isinstance(error, OSError):
                        connection = None
                    continue
                failure = ""
                break
            if failure:
                self.failures.append(failure)
            if self.leaves and connection is None:
                return
        if connection is not None:
            connection.close()


_SCRIPT = """
wrk.method = "POST"
wrk.body = io.open("{body}", "rb"):read("*a")
wrk.headers["Content-Type"] = "application/json"
"""


@dataclass
class Pressure:
    """What wrk counted."""

    requests: int = 0
    failures: str = ""


@contextlib.contextmanager
def pressure(url: str, model: str, connections: int = 8) -> Iterator[Pressure]:
    """Many requests from wrk, or from a few more of our own clients where it is not installed."""
    found = Pressure()
    if not shutil.which("wrk"):
        with Load(url, post(model), value=lambda answer: None, clients=4) as load:
            yield found
        found.requests, found.failures = len(load.seen), "; ".join(load.failures[:5])
        return
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder) / "body.json", Path(folder) / "post.lua"
        body.write_bytes(json.dumps({"inputs": [rows()]}).encode())
        script.write_text(_SCRIPT.format(body=body))
        process = subprocess.Popen(
            [
                "wrk",
                "-t1",
                f"-c{connections}",
                "-d600s",
                "--timeout",
                "60s",
                "-s",
                script,
                f"{url}/v2/models/{model}/infer",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield found
        finally:
            process.send_signal(signal.SIGINT)
            text, _ = process.communicate(timeout=60)
        counted = re.search(r"(\d+) requests in", text)
        found.requests = int(counted.group(1)) if counted else 0
        found.failures = "; ".join(line.strip() for line in text.splitlines() if "Non-2xx" in line or "errors" in line)


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def cpu_seconds(pid: int) -> float:
    """CPU time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100
