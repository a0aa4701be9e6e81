"""An unchanged MLflow client, and large files, through the one port."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.mlflow.stack import Stack

SCRIPT = """
import sys, mlflow, mlflow.sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
x, y = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(x, y)
mlflow.set_experiment("iris")
with mlflow.start_run() as run:
    mlflow.log_param("max_iter", 500)
    mlflow.log_metric("accuracy", float(model.score(x, y)))
    mlflow.log_text("a note", "notes/100 %.txt")
    info = mlflow.sklearn.log_model(model, name="model", input_example=x[:2])
version = mlflow.register_model(info.model_uri, "iris").version
loaded = mlflow.sklearn.load_model(f"models:/iris/{version}")
assert (loaded.predict(x) == model.predict(x)).all()
assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes/100 %.txt") == "a note"
assert mlflow.get_run(run.info.run_id).data.metrics["accuracy"] > 0.9
assert mlflow.search_runs(experiment_names=["iris"]).shape[0] == 1
print(run.info.run_id, version)
"""
PART = os.urandom(1024 * 1024)
PARTS = 200


def test_unchanged_script_logs_and_registers_when_only_the_address_differs(stack: Stack) -> None:
    env = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"{stack.url}/mlflow",
        "MLFLOW_TRACKING_TOKEN": stack.tokens["developer"],
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


def parts() -> Iterator[bytes]:
    for _ in range(PARTS):
        yield PART


def test_memory_stays_flat_when_200_mb_pass_both_ways(stack: Stack) -> None:
    path = "/mlflow/api/2.0/mlflow-artifacts/artifacts/0/large/artifacts/large.bin"
    Path(f"/proc/{stack.pid}/clear_refs").write_text("5")  # the peak begins anew
    before = resident_mb(stack.pid)
    headers = {**stack.bearer("developer"), "Content-Length": str(PARTS * len(PART))}
    put = httpx.put(stack.url + path, content=parts(), headers=headers, timeout=60)
    assert put.status_code == 200, put.text
    digest = hashlib.sha256()
    with httpx.stream("GET", stack.url + path, headers=stack.bearer("viewer"), timeout=60) as answer:
        assert "sandbox" in answer.headers["content-security-policy"]
        for chunk in answer.iter_raw():
            digest.update(chunk)
    expected = hashlib.sha256()
    for part in parts():
        expected.update(part)
    assert digest.digest() == expected.digest()
    growth = resident_mb(stack.pid) - before
    print(f"web process: {before:.0f} MB before, peak grew by {growth:.1f} MB")
    assert growth < 50


def test_nothing_is_stored_when_the_client_hangs_up_half_way(stack: Stack) -> None:
    import socket
    import time

    path = "/mlflow/api/2.0/mlflow-artifacts/artifacts/0/half/artifacts/half.bin"
    host, _, port = stack.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10000000\r\n"
        connection.sendall((head + f"Authorization: Bearer {stack.tokens['developer']}\r\n\r\n").encode())
        connection.sendall(PART)
        time.sleep(0.2)
    time.sleep(0.5)
    assert httpx.get(stack.url + path, headers=stack.bearer("developer")).status_code == 404
