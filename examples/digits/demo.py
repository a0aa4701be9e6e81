"""The whole way of a model, over HTTP: train → export → optimize → deploy → canary → monitor → retrain.

Reads SLIPWAY_URL, SLIPWAY_SERVING_URL and SLIPWAY_TOKEN. Writes the curl line that `make up` prints to
SLIPWAY_HOME/demo-curl.txt when SLIPWAY_HOME is set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from client import Slipway
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
URL = os.environ.get("SLIPWAY_URL", "http://127.0.0.1:8000")
SERVING = os.environ.get("SLIPWAY_SERVING_URL", "http://127.0.0.1:8080")
TOKEN = os.environ["SLIPWAY_TOKEN"]
STEPS = [
    {"mode": "canary", "weight": 20, "min_seconds": 6, "min_requests": 40},
    {"mode": "canary", "weight": 50, "min_seconds": 6, "min_requests": 40},
    {"mode": "full", "weight": 100, "min_seconds": 5},
]


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """The digits that training has not seen: float32 [540, 64] and their labels."""
    features, target = load_digits(return_X_y=True)
    _, rows, _, labels = train_test_split(
        features.astype(np.float32), target, test_size=0.3, random_state=7, stratify=target
    )
    return rows, labels


def train(slipway: Slipway, hidden: int) -> dict[str, Any]:
    """Runs the training script as any user would, and waits until Slipway has taken the version in."""
    before = slipway.first("/models", name="digits")
    known = before["last_number"] if before else 0
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"{URL}/mlflow",
        "MLFLOW_TRACKING_TOKEN": TOKEN,
        "GIT_PYTHON_REFRESH": "quiet",
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "train.py"), "--hidden", str(hidden)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"train.py failed:\n{done.stderr}")

    def arrived() -> Any:
        model = slipway.first("/models", name="digits")
        return model and slipway.first("/versions", model=model["id"], number=known + 1)

    version = slipway.wait_for("The version in the registry", arrived)
    slipway.job(slipway.get(f"/versions/{version['id']}")["job"])
    return slipway.get(f"/versions/{version['id']}")


def artifact(slipway: Slipway, version_id: int, format: str) -> dict[str, Any]:
    """Waits for an exported form of a version; an export that failed ends the demo with its reason."""

    def ready() -> Any:
        for job in slipway.get("/jobs", kind="export", state="failed")["results"]:
            if job["params"]["version_id"] == version_id and job["params"]["exporter"] == format:
                raise SystemExit(f"Export to {format} failed: {job['reason']}")
        return slipway.first("/artifacts", version=version_id, format=format)

    return slipway.wait_for(f"The export to {format}", ready)


class Traffic(threading.Thread):
    """Sends held-out digits to the endpoint until told to stop, and keeps score."""

    def __init__(self, slipway: Slipway) -> None:
        super().__init__(daemon=True)
        self.slipway, self.over = slipway, threading.Event()
        self.sent = self.right = self.failed = 0
        self.by_version: dict[str, int] = {}

    def run(self) -> None:
        rows, labels = held_out()
        position = 0
        while not self.over.wait(0.02):
            try:
                predicted, version = self.slipway.infer("digits", rows[position : position + 1])
            except Exception as error:
                self.failed += 1
                print(f"request failed: {error}", flush=True)
                continue
            self.sent += 1
            self.right += int(predicted[0] == labels[position])
            self.by_version[version] = self.by_version.get(version, 0) + 1
            position = (position + 1) % len(rows)


def deploy(slipway: Slipway, onnx: dict[str, Any]) -> dict[str, Any]:
    """The endpoint `digits`, made with its first version or found; answers when the servers have it."""
    endpoint = slipway.first("/endpoints", name="digits")
    if endpoint is None:
        endpoint = slipway.post("/endpoints", {"name": "digits", "access": "open", "artifact": onnx["id"]})
    elif not endpoint["deployments"]:
        endpoint = slipway.post(f"/endpoints/{endpoint['id']}/place", {"artifact": onnx["id"]})
    slipway.wait_for(
        "An answer of the endpoint",
        lambda: slipway.serving.get("/v2/models/digits/ready").status_code == 200,
        60,
    )
    return endpoint


def roll_out(slipway: Slipway, endpoint: dict[str, Any], onnx: dict[str, Any]) -> str:
    """A canary to another artifact under live traffic; returns how it ended."""
    rollout = slipway.post("/rollouts", {"endpoint": endpoint["id"], "artifact": onnx["id"], "steps": STEPS})
    traffic = Traffic(slipway)
    traffic.start()
    slipway.job(rollout["job"])
    traffic.over.set()
    traffic.join()
    ended = slipway.get(f"/rollouts/{rollout['id']}")
    shares = ", ".join(f"version {version}: {count}" for version, count in sorted(traffic.by_version.items()))
    print(f"  {traffic.sent} requests ({shares}), {traffic.failed} failed, {traffic.right} right")
    return ended["state"]


def main() -> None:
    slipway = Slipway(URL, TOKEN, SERVING)
    print("1. Train and register with plain MLflow")
    first = train(slipway, hidden=32)
    print(f"   digits {first['number']}: {first['state']}, accuracy {first['metrics']['accuracy']:.4f}")

    print("2. Export, each compared with the source on 540 held-out rows")
    onnx = artifact(slipway, first["id"], "onnx")
    pmml = artifact(slipway, first["id"], "pmml")
    for made in (onnx, pmml):
        print(f"   {made['label']}: {made['size']} bytes, largest difference {made['parity']['max_abs']:.2g}")

    print("3. Optimize to int8 and measure both")
    job = slipway.post(f"/artifacts/{onnx['id']}/optimize", {"optimizer": "dynamic-quantization"})
    variant = slipway.get(f"/artifacts/{slipway.job(job['id'])['result']['artifact']}")
    measured = variant["measurements"][0]
    print(
        f"   int8: {variant['size']} bytes, accuracy {measured['metrics']['accuracy']:.4f}, "
        f"{measured['speedup']:.2f} times the speed"
    )

    print("4. Deploy behind the endpoint digits")
    endpoint = deploy(slipway, onnx)
    rows, labels = held_out()
    predicted, version = slipway.infer("digits", rows[:100])
    print(f"   version {version} is right on {int((predicted == labels[:100]).sum())} of 100 held-out digits")

    print("5. Train a second version and roll it out by a canary under traffic")
    second = train(slipway, hidden=64)
    state = roll_out(slipway, endpoint, artifact(slipway, second["id"], "onnx"))
    print(f"   rollout to version {second['number']}: {state}")

    print("6. Retrain by a signed hook")
    policy = slipway.first("/policies", model=first["model"]) or slipway.post(
        "/policies", {"model": first["model"], "name": "new labels", "hook": True}
    )
    secret = slipway.post(f"/policies/{policy['id']}/secret")["secret"]
    firing = slipway.call_hook(policy["hook_url"], secret, {"event": "labels.arrived"})
    retrained = slipway.job(firing["job"])["result"]
    print(f"   registered digits {retrained['number']}")

    write_curl(slipway.request_body("digits", rows[:1]))


def write_curl(request: dict[str, Any]) -> None:
    """The line that `make up` prints."""
    body = json.dumps(request, separators=(",", ":"))
    line = f"curl -s {SERVING}/v2/models/digits/infer -d '{body}'"
    if home := os.environ.get("SLIPWAY_HOME"):
        (Path(home) / "demo-curl.txt").write_text(line + "\n")
    print(f"Try it:\n{line}")


if __name__ == "__main__":
    main()
