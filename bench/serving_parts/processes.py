"""Servers under measurement: started under a guard, weighed, waited for, and always ended."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.serving_parts import guard
from bench.serving_parts.requests import Request, ask, is_right

START_S = 60.0


class BenchError(Exception):
    """Something could not be measured; the text says why."""


class Child:
    """A command and all its processes; leaving the `with` block ends every one of them."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str] | None = None, cwd: Path | None = None):
        self.log = log
        with log.open("wb") as file:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=env,
                cwd=cwd,
                text=True,
            )
        assert self._guard.stdout is not None
        words = self._guard.stdout.readline().split()
        if len(words) != 2:
            self.stop()
            raise BenchError(f"{command[0]} could not be started: {self.tail()}")
        self.began, self.pid = float(words[0]), int(words[1])

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; returns when nothing of it is left. What the guard was doing is the guard's own matter."""
        if self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.close()
        self._guard.wait()
        if self._guard.stdout is not None:
            self._guard.stdout.close()

    def ended(self) -> bool:
        return self._guard.poll() is not None

    def tail(self, lines: int = 15) -> str:
        """The last lines it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def memory_mib(self) -> float:
        """Sum of the proportional set sizes of its processes: shared pages count once, between them."""
        total = 0
        for pid in guard.descendants(self._guard.pid):
            # A process that ended meanwhile weighs nothing.
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        return round(total / 1024, 1)

    def first_right(self, port: int, request: Request, seconds: float = START_S) -> float:
        """Seconds from the start of the process to its first right answer. Raises BenchError."""
        deadline = time.monotonic() + seconds
        last = "no answer"
        while time.monotonic() < deadline:
            if self.ended():
                raise BenchError(f"it ended while starting:\n{self.tail()}")
            try:
                status, headers, body = ask(port, request)
                if status == 200 and is_right(request, headers, body):
                    return round(time.monotonic() - self.began, 2)
                last = f"{status} {body[:300]!r}"
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                last = f"{type(error).__name__}: {error}"
            time.sleep(0.01)
        raise BenchError(f"no right answer within {seconds:.0f} s ({last})\n{self.tail()}")


@dataclass
class Running:
    """A started server: where it listens and what it is asked, by the way of asking (json, binary)."""

    child: Child
    port: int
    requests: dict[str, Request]
    notes: Callable[[], dict[str, Any]] = dict


def free_port(count: int = 1) -> int:
    """A port that is free now, and so are the `count - 1` after it."""
    while True:
        with contextlib.ExitStack() as stack:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
            try:
                for more in range(first + 1, first + count):
                    other = stack.enter_context(socket.socket())
                    other.bind(("127.0.0.1", more))
            except (OSError, OverflowError):
                continue
            return first


def cores() -> list[int]:
    """The processor cores this process and its children may use."""
    return sorted(os.sched_getaffinity(0))


def clean_env(**more: str) -> dict[str, str]:
    """The environment without the product's settings; one thread for whatever reads OMP_NUM_THREADS."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SLIPWAY_") and k != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **more}


def tool(name: str) -> str:
    """Path of a program. Raises BenchError naming the Debian package that has it."""
    found = shutil.which(name)
    if found is None:
        package = {"wrk": "wrk", "h2load": "nghttp2-client", "nghttp": "nghttp2-client"}[name]
        raise BenchError(f"{name} is missing (apt-get install {package})")
    return found
