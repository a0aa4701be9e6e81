"""What no server can beat on this machine: the bare model, and bare HTTP."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bench.serving_parts import hello, models, raw
from bench.serving_parts.drive import Load, wrk
from bench.serving_parts.processes import BenchError, Child, clean_env, free_port
from bench.serving_parts.requests import Request, artifact, ask


def raw_calls(model: str, processes: int, seconds: float, folder: Path) -> float:
    """Calls per second of a model in so many processes together."""
    file, sample = folder / f"{model}.onnx", folder / f"{model}.npy"
    file.write_bytes(artifact(model))
    np.save(sample, models.sample(model))
    command = [sys.executable, raw.__file__, str(file), str(sample), str(seconds)]
    with ExitStack() as stack:
        running = []
        for _ in range(processes):
            one = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_env())
            stack.callback(one.wait)
            stack.callback(one.kill)
            running.append(one)
        for one in running:
            assert one.stdout is not None
            if one.stdout.readline() != "ready\n":
                raise BenchError(f"the raw calls of {model} did not start")
        for one in running:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        return round(sum(float(one.stdout.readline()) for one in running if one.stdout), 1)


def bare_http(
    request: Request, answer_bytes: int, processes: int, connections: list[int], seconds: float, folder: Path
) -> list[Load]:
    """The bare server's rates for a request and an answer of the given size."""
    port = free_port()
    command = [sys.executable, hello.__file__, str(port), str(processes), str(answer_bytes)]
    with Child(command, folder / "hello.log", env=clean_env()) as child:
        wait_for(child, port, request)
        return [wrk(port, request, count, seconds) for count in connections]


def wait_for(child: Child, port: int, request: Request, seconds: float = 20) -> None:
    """Until the port answers anything at all. Raises BenchError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask(port, request)
            return
        except OSError:
            if child.ended() or time.monotonic() > deadline:
                raise BenchError(f"it did not start:\n{child.tail()}") from None
            time.sleep(0.02)
