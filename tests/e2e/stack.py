"""A whole Slipway of its own, started by the product's own `up`: for tests that drive or break it.

Nothing of the test run's environment reaches it (the embedded services of the other tests set DATABASE_URL
and more), and whatever carries its mark is ended with it, also when a test fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from honcho.environ import parse

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = ("SLIPWAY_", "MLFLOW_", "DJANGO_", "PYTEST_", "CELERY_")
START_LIMIT = 150.0


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on."""
    with contextlib.ExitStack() as probes:
        opened = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in opened:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in opened]


def until(condition: Callable[[], Any], limit: float, what: str, every: float = 0.1) -> Any:
    """The first true answer of `condition`; fails with `what` after `limit` seconds."""
    deadline = time.monotonic() + limit
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not happen within {limit:.0f} s"
        time.sleep(every)


class Stack:
    """One `up` in a home of its own; `lines` replaces the Procfile's processes."""

    def __init__(self, *, home: Path | None = None, lines: dict[str, str] | None = None, **env: str) -> None:
        self.home = home or Path(tempfile.mkdtemp(prefix="slipway-e2e-"))
        web, serving, grpc, mlflow = free_ports(4)
        given = os.environ.items()
        kept = {k: v for k, v in given if not k.startswith(FOREIGN) and k not in {"DATABASE_URL", "REDIS_URL"}}
        self.start_env = {
            **kept,
            "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
            "SLIPWAY_HOME": str(self.home),
            "SLIPWAY_PORT": str(web),
            "SLIPWAY_SERVING_PORT": str(serving),
            "SLIPWAY_GRPC_PORT": str(grpc),
            "SLIPWAY_MLFLOW_PORT": str(mlflow),
            "SLIPWAY_DEMO": "0",
            **env,
        }
        self.url, self.serving = f"http://127.0.0.1:{web}", f"http://127.0.0.1:{serving}"
        self.mlflow = f"http://127.0.0.1:{mlflow}/mlflow"
        self.output = self.home / "output.txt"
        self.procfile = ROOT / "Procfile"
        if lines is not None:
            self.procfile = self.home / "Procfile"
            self.procfile.write_text("".join(f"{name}: {line}\n" for name, line in lines.items()))
        self.up: subprocess.Popen[bytes] | None = None
        # Where prepared environments (100 MB from a registry) outlive a test run.
        if kept_environments := os.environ.get("SLIPWAY_TEST_ENVIRONMENTS"):
            Path(kept_environments).mkdir(parents=True, exist_ok=True)
            (self.home / "environments").symlink_to(kept_environments)

    # Life

    def start(self) -> Stack:
        """Starts `up` and waits until everything answers."""
        said = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as stream:
            self.up = subprocess.Popen(
                [sys.executable, "-m", "slipway.launch.up", "--procfile", str(self.procfile), "--with-parent"],
                env=self.start_env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            )  # fmt: skip

        def running() -> bool:
            text = self.output.read_text()[said:]
            assert self.up is not None and self.up.poll() is None, f"up ended:\n{text}"
            return "Ctrl-C stops it" in text

        until(running, START_LIMIT, "The start of the whole")
        return self

    def stop(self) -> None:
        """Ends it as a person would; what does not end is killed."""
        if self.up is not None and self.up.poll() is None:
            for pids in self.pids().values():
                _signal(pids, signal.SIGCONT)
            self.up.terminate()
            try:
                self.up.wait(30)
            except subprocess.TimeoutExpired:
                self.up.kill()
                self.up.wait()
        deadline = time.monotonic() + 10
        while (left := self.everything()) and time.monotonic() < deadline:
            _signal(left, signal.SIGKILL)
            time.sleep(0.1)

    def remove(self) -> None:
        """Ends it and removes its home."""
        self.stop()
        if os.environ.get("SLIPWAY_TEST_KEEP") != "1":  # its logs and database tell what went wrong
            shutil.rmtree(self.home, ignore_errors=True)

    # Processes

    def everything(self) -> list[int]:
        """Every living process with this home in its environment, `up` and its warden among them."""
        return [pid for pid, names in self._marked()]

    def pids(self) -> dict[str, list[int]]:
        """{name of the Procfile's line or store: its processes, the main one first}."""
        found: dict[str, list[int]] = {}
        for pid, name in self._marked():
            if name:
                found.setdefault(name, []).append(pid)
        up = self.up.pid if self.up is not None else 0
        return {name: sorted(pids, key=lambda pid: (parent(pid) != up, pid)) for name, pids in found.items()}

    def main(self, name: str) -> int:
        """The process that `up` started under this name, waited for."""
        assert self.up is not None
        up = self.up.pid

        def running() -> int:
            return next((pid for pid in self.pids().get(name, []) if parent(pid) == up), 0)

        return int(until(running, 30, f"{name} running"))

    def children(self, name: str) -> list[int]:
        """The direct children of `main(name)`."""
        main = self.main(name)
        return [pid for pid in self.pids().get(name, []) if parent(pid) == main]

    def _marked(self) -> Iterator[tuple[int, str]]:
        home = f"SLIPWAY_HOME={self.home}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                values = (entry / "environ").read_bytes().split(b"\0")
                if home not in values or state_of(int(entry.name)) in "ZX":
                    continue
            except OSError:
                continue
            mark = next((v.decode() for v in values if v.startswith(b"SLIPWAY_PROCESS=")), "")
            yield int(entry.name), mark.rpartition(":")[2].rstrip(";")

    # Talking to it

    @property
    def env(self) -> dict[str, str]:
        """The environment of its processes, for workers or commands of a test's own."""
        return {**self.start_env, **parse((self.home / "env").read_text())}

    @property
    def token(self) -> str:
        return (self.home / "admin-token").read_text().strip()

    def api(self) -> httpx.Client:
        """The REST API as the administrator."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=60)

    def python(self, code: str, limit: float = 60) -> str:
        """What `code` prints when it runs beside Slipway, Django set up."""
        done = subprocess.run(
            [sys.executable, "-c", f"import django; django.setup()\n{code}"],
            env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=limit,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    def log(self, name: str, lines: int = 40) -> str:
        """The end of a process's log."""
        text = (self.home / "logs" / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def parent(pid: int) -> int:
    """The parent's id; 0 when the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def state_of(pid: int) -> str:
    """The kernel's letter for its state; X when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "X"


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def send(pid: int, number: int = signal.SIGKILL) -> None:
    """Signals one process; one that is gone is fine."""
    _signal([pid], number)


class Load:
    """Constant V2 requests from one thread; every answer that is not 200 counts as failed.

    `retries` is how often a client repeats a request whose connection broke.
    """

    def __init__(self, serving: str, endpoint: str, body: dict[str, Any], *, retries: int = 0) -> None:
        import threading

        self.path = f"{serving}/v2/models/{endpoint}/infer"
        self.body, self.retries = body, retries
        self.sent, self.retried, self.longest = 0, 0, 0.0
        self.failures: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        with httpx.Client(timeout=10) as client:
            while not self._over.wait(0.01):
                started = time.monotonic()
                self._one(client)
                self.sent += 1
                self.longest = max(self.longest, time.monotonic() - started)

    def _one(self, client: httpx.Client) -> None:
        for left in range(self.retries, -1, -1):
            try:
                answer = client.post(self.path, json=self.body)
            except httpx.HTTPError as error:
                if left:
                    self.retried += 1
                    continue
                self.failures.append(f"{time.strftime('%X')} {error!r}")
                return
            if answer.status_code != 200:
                self.failures.append(f"{time.strftime('%X')} {answer.status_code} {answer.text[:200]}")
            return
