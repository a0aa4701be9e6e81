"""Our own server against the whole conformance suite, over REST and gRPC."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.serving.conftest import wait_until

ROOT = Path(__file__).resolve().parents[2]
# What our server does not offer, each for a reason that docs/conformance.md gives.
NOT_OFFERED = {"http.gzip", "sequence.state"}


def test_server_passes_every_check_but_those_it_knowingly_leaves_out(tmp_path: Path) -> None:
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("SLIPWAY_")}, "PYTHONPATH": str(ROOT)}
    models, report = tmp_path / "models", tmp_path / "report.json"
    python = [sys.executable, "-m"]
    subprocess.run([*python, "conformance.models", str(models)], env=env, cwd=ROOT, check=True, timeout=120)
    arguments = ["serving", "--models", str(models), "--port", "0", "--grpc-port", "0", "--processes", "1"]
    server = subprocess.Popen([*python, *arguments], env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        http = server.stdout.readline().split()[-1]
        rpc = server.stdout.readline().split()[-1].removeprefix("grpc://")
        wait_until(lambda: httpx.get(f"{http}/v2/health/ready").status_code == 200)
        command = [*python, "conformance", http, "--grpc", rpc, "--json", str(report)]
        found = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    finally:
        server.terminate()
        server.wait(30)
    assert report.exists(), found.stderr
    rows = json.loads(report.read_text())["checks"]
    failed = [row for row in rows if row["result"] == "fail"]
    assert not failed and found.returncode == 0, failed
    assert {row["check"] for row in rows if row["result"] != "pass"} == NOT_OFFERED
    assert len(rows) > 300
