"""Our server as it is used: following a control plane with everything on, and alone over a folder of models."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bench.serving_parts import stub
from bench.serving_parts.processes import BenchError, Child, Running, clean_env, free_port
from bench.serving_parts.requests import Request, artifact, v2_binary, v2_json

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "bench-token"
NEWS_S = 60.0


@dataclass
class Plane:
    """Our end of the stub control plane."""

    child: Child
    port: int
    folder: Path
    sizes: dict[str, int] = field(default_factory=dict)

    def add(self, data: bytes) -> str:
        """Keep an artifact; its digest."""
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / digest).write_bytes(data)
        self.sizes[digest] = len(data)
        return digest

    def deployment(self, ident: str, digest: str, weight: float = 100, mode: str = "live") -> dict[str, Any]:
        """One deployment of a document."""
        artifact = {"sha256": digest, "format": "onnx", "size": self.sizes[digest]}
        return {"id": ident, "version": ident, "weight": weight, "mode": mode, "artifact": artifact}

    def publish(self, *endpoints: dict[str, Any]) -> int:
        """Wish for this state; its generation."""
        return int(self._ask("PUT", "/document", json.dumps(endpoints).encode()))

    def seen(self) -> dict[str, Any]:
        """Reports so far: requests counted, and the last word of each process."""
        found: dict[str, Any] = self._ask("GET", "/seen")
        return found

    def wait_ready(self, generation: int, idents: set[str], processes: int) -> None:
        """Until every process says that these deployments are ready. Raises BenchError."""
        deadline = time.monotonic() + NEWS_S
        while time.monotonic() < deadline:
            said = self.seen()["processes"]
            if len(said) >= processes and all(
                one["generation"] >= generation and all(one["states"].get(ident) == "ready" for ident in idents)
                for one in said
            ):
                return
            time.sleep(0.05)
        raise BenchError(f"deployments {sorted(idents)[:5]} were not ready after {NEWS_S:.0f} s")

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def endpoint(name: str, *deployments: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An endpoint of a document that asks for the bench's token."""
    tokens = [hashlib.sha256(TOKEN.encode()).hexdigest()]
    return {"name": name, "access": "token", "tokens": tokens, "deployments": list(deployments), **more}


def requests(model: str, token: bool) -> dict[str, Request]:
    """What our server is asked for a model of this name."""
    headers = {"Authorization": f"Bearer {TOKEN}"} if token else {}
    path = f"/v2/models/{model}/infer"
    return {"json": v2_json(model, path, headers), "binary": v2_binary(model, path, headers)}


@contextmanager
def plane(folder: Path) -> Iterator[Plane]:
    """A stub control plane that answers."""
    artifacts = folder / "plane"
    artifacts.mkdir()
    port = free_port()
    command = [sys.executable, stub.__file__, str(port), str(artifacts)]
    with Child(command, folder / "plane.log", env=clean_env()) as child:
        made = Plane(child, port, artifacts)
        deadline = time.monotonic() + 20
        while True:
            try:
                made.seen()
                break
            except OSError:
                if child.ended() or time.monotonic() > deadline:
                    raise BenchError(f"the stub control plane did not start:\n{child.tail()}") from None
                time.sleep(0.02)
        yield made


def server(arguments: list[str], port: int, processes: int, log: Path) -> Child:
    """`python -m serving`, not yet waited for."""
    command = [sys.executable, "-m", "serving", "--port", str(port), "--processes", str(processes), *arguments]
    # Without gRPC, unless its port is among the arguments.
    env = clean_env(PYTHONPATH=str(ROOT), SLIPWAY_SERVING_TOKEN="bench-serving", SLIPWAY_GRPC_PORT="off")
    return Child(command, log, env=env, cwd=ROOT)


def following(wished: Plane, folder: Path, processes: int, port: int, *more: str) -> Child:
    """A server that follows the stub, with a home of its own."""
    home = folder / "home"
    arguments = ["--home", str(home), "--control-url", f"http://127.0.0.1:{wished.port}", *more]
    return server(arguments, port, processes, folder / "serving.log")


@contextmanager
def product(model: str, folder: Path, processes: int, *more: str) -> Iterator[Running]:
    """With a control plane, reports, a token and two live deployments that share the requests."""
    with ExitStack() as stack:
        wished = stack.enter_context(plane(folder))
        halves = [wished.add(artifact(model, note)) for note in ("a", "b")]
        deployments = [wished.deployment(f"{model}-{i}", digest, 50) for i, digest in enumerate(halves)]
        wished.publish(endpoint(model, *deployments))
        port = free_port()
        child = stack.enter_context(following(wished, folder, processes, port, *more))
        yield Running(child, port, requests(model, token=True), lambda: _proof(wished, port))


def _proof(wished: Plane, port: int) -> dict[str, Any]:
    """That reports and metrics were really on: what each of them counted."""
    time.sleep(1.5)  # the last second's reports
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    lines = [line for line in text.splitlines() if line.startswith("slipway_inferences_total")]
    metrics = sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    return {
        "counted_by_reports": wished.seen()["requests"],
        "counted_by_metrics": int(metrics),
        "deployments": len(lines),
    }


@contextmanager
def standalone(model: str, folder: Path, processes: int) -> Iterator[Running]:
    """Over a folder with this one model."""
    models_folder = folder / "models"
    models_folder.mkdir()
    (models_folder / f"{model}.onnx").write_bytes(artifact(model))
    port = free_port()
    with server(["--models", str(models_folder)], port, processes, folder / "serving.log") as child:
        yield Running(child, port, requests(model, token=False))


@cache
def has_flag(flag: str) -> bool:
    """Whether this server knows a flag."""
    told = subprocess.run(
        [sys.executable, "-m", "serving", "--help"],
        cwd=ROOT,
        env=clean_env(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    return flag in told.stdout
