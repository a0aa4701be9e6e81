"""gRPC against REST with binary tensors: the same model, the same server, the same client program."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.serving_parts.drive import Counted, h2load
from bench.serving_parts.extras import row
from bench.serving_parts.ours import TOKEN, has_flag, product
from bench.serving_parts.processes import BenchError, clean_env, free_port, tool
from bench.serving_parts.requests import Request, ask, expected, grpc_message, holds

PATH = "/inference.GRPCInferenceService/ModelInfer"
PORT_S = 5.0


def request(model: str) -> Request:
    """A gRPC call as an HTTP/2 request."""
    headers = {"content-type": "application/grpc", "te": "trailers", "authorization": f"Bearer {TOKEN}"}
    return Request(PATH, grpc_message(model), expected(model), headers)


def listens(port: int, seconds: float = PORT_S) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


def answer_size(port: int, asked: Request) -> int:
    """Bytes of the answer to one call, which has status 0 and the right numbers. Raises BenchError otherwise."""
    with tempfile.NamedTemporaryFile(prefix="bench-grpc-") as body:
        body.write(asked.body)
        body.flush()
        command = [tool("nghttp"), "--no-dep", "--timeout=20", f"-d{body.name}"]
        command += [word for key, value in asked.headers.items() for word in ("-H", f"{key}: {value}")]
        url = f"http://127.0.0.1:{port}{asked.path}"
        told = [
            subprocess.run([*command, *more, url], env=clean_env(), capture_output=True, timeout=60).stdout
            for more in ([], ["-v", "-n"])
        ]
    answer, frames = told
    if b"grpc-status: 0" not in frames:
        lines = [line for line in frames.decode(errors="replace").splitlines() if "grpc-" in line or ":status" in line]
        raise BenchError(f"gRPC did not answer: {'; '.join(lines) or 'no frames'}"[:300])
    # The tensor may begin at any byte of the message.
    shifted = (answer[shift:][: (len(answer) - shift) // 4 * 4] for shift in range(4))
    if not any(holds(np.frombuffer(part, np.float32), asked.expected) for part in shifted):
        raise BenchError("gRPC answered other numbers than the model")
    return len(answer)


def compare(folder: Path, processes: int, seconds: float) -> list[dict[str, Any]]:
    """Rows of the ratio gRPC to REST for the small and the large model. Raises BenchError."""
    tool("h2load")
    if not has_flag("--grpc-port"):
        raise BenchError("this server has no --grpc-port")
    rows = []
    for model in ("tiny", "cnn"):
        port = free_port()
        place = folder / model
        place.mkdir()
        with product(model, place, processes, "--grpc-port", str(port)) as running:
            rest = running.requests["binary"]
            running.child.first_right(running.port, rest)
            if not listens(port):
                raise BenchError(f"nothing answers on the gRPC port\n{running.child.tail()}")
            asked = request(model)
            sizes = {"rest": len(ask(running.port, rest)[2]), "grpc": answer_size(port, asked)}
            found: dict[str, list[Counted]] = {"rest": [], "grpc": []}
            h2load(running.port, rest, 8, 1, http1=True)  # awake
            h2load(port, asked, 8, 1, http1=False)
            for _ in range(2):
                found["rest"].append(h2load(running.port, rest, 8, seconds, http1=True))
                found["grpc"].append(h2load(port, asked, 8, seconds, http1=False))
        # h2load sees no gRPC status; but an error has no body, and errors make a smaller mean.
        wrong = sum(one.errors for counted in found.values() for one in counted)
        short = [name for name, counted in found.items() if any(one.body_bytes < 0.97 * sizes[name] for one in counted)]
        rates = {name: round(sum(one.rps for one in counted) / len(counted), 1) for name, counted in found.items()}
        ratio = rates["grpc"] / rates["rest"]
        means = {name: [one.mean_ms for one in counted] for name, counted in found.items()}
        rows.append(
            row(
                f"gRPC raw against binary REST, {model} c=8",
                ratio,
                "≥ 0.75 ×",
                ratio >= 0.75 and not wrong and not short,
                rps=rates,
                mean_ms=means,
                errors=wrong,
                short_answers=short,
            )
        )
    return rows
