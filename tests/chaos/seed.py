"""Registers small models in MLflow, as a training script would leave them. Runs beside Slipway, Django set up.

A run holds an ONNX-flavoured model, evaluation rows and the project that trained it, all tiny, so that every
kind of job takes about a second.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from registry import storage
from registry.mlflow import gateway
from tests.e2e.small import classifier, evaluation_csv

MLMODEL = """artifact_path: model
flavors:
  onnx:
    data: model.onnx
    onnx_version: 1.23.2
model_size_bytes: 1000
"""
MLPROJECT = """name: small
entry_points:
  main:
    command: "python train.py"
"""
TRAIN = """import mlflow
import onnx

with mlflow.start_run():
    mlflow.log_metric("accuracy", 0.5)
    info = mlflow.onnx.log_model(onnx.load("model.onnx"), name="model")
mlflow.register_model(info.model_uri, "small")
"""


def run_make(seed: int) -> tuple[str, str]:
    """(run id, source) of one trained model; the same seed again is the same run."""
    run_id = gateway.run_ensure("chaos", tags={"slipway.key": f"seed:{seed}"}, run_name=f"seed {seed}")
    files = {
        "model/MLmodel": MLMODEL.encode(),
        "model/model.onnx": classifier(seed),
        "datasets/evaluation.csv": evaluation_csv(seed=0),
        "project/MLproject": MLPROJECT.encode(),
        "project/train.py": TRAIN.encode(),
        "project/model.onnx": classifier(seed),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        for name, content in files.items():
            path.write_bytes(content)
            storage.put_file(path, run_id=run_id, artifact_path=name)
    gateway.run_log(run_id, metrics={"accuracy": 0.5})
    gateway.run_finish(run_id)
    return run_id, f"{gateway.run_read(run_id).artifact_uri}/model"


def versions_register(name: str, count: int, *, seeds: int = 5, first: int = 0) -> None:
    """Registers `count` versions of the model `name` in MLflow, of a few different runs."""
    runs = [run_make(seed) for seed in range(first, first + seeds)]
    for index in range(count):
        run_id, source = runs[index % seeds]
        key = {"slipway.key": f"seed:{name}:{first}:{index}"}
        gateway.version_register(name, run_id=run_id, source=source, tags=key)
