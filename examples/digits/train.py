"""Trains a digit classifier and registers it in MLflow. Plain MLflow: nothing of Slipway is imported.

    MLFLOW_TRACKING_URI=http://127.0.0.1:8000/mlflow MLFLOW_TRACKING_TOKEN=… python train.py

What it logs beside the model is optional, and each part buys something: `datasets/` (rows for comparing
exports, measuring and drift) and `project/` (the entry point that a retraining runs again).
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import mlflow
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).resolve().parent
# MLflow stores scikit-learn models as skops and wants to be told of types that it does not know.
TRUSTED = ["sklearn.neural_network._stochastic_optimizers.AdamOptimizer"]


def write_rows(path: Path, features: np.ndarray, target: np.ndarray) -> None:
    """A CSV with a header; the last column is the class."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"pixel_{index}" for index in range(features.shape[1])), "target"])
        writer.writerows([*row, label] for row, label in zip(features.tolist(), target.tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=64, help="neurons of the hidden layer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="digits", help="name of the registered model")
    options = parser.parse_args()

    features, target = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        features.astype(np.float32), target, test_size=0.3, random_state=7, stratify=target
    )
    model = make_pipeline(
        StandardScaler(),
        MLPClassifier((options.hidden,), max_iter=60, random_state=options.seed, early_stopping=False),
    )
    mlflow.set_experiment("digits")
    with mlflow.start_run(run_name=f"mlp-{options.hidden}") as run, tempfile.TemporaryDirectory() as folder:
        model.fit(train_x, train_y)
        accuracy = accuracy_score(test_y, model.predict(test_x))
        mlflow.log_params({"hidden": options.hidden, "seed": options.seed})
        mlflow.log_metric("accuracy", accuracy)
        write_rows(Path(folder) / "training.csv", train_x, train_y)
        write_rows(Path(folder) / "evaluation.csv", test_x, test_y)
        mlflow.log_artifacts(folder, "datasets")
        for name in ("train.py", "MLproject"):
            mlflow.log_artifact(str(HERE / name), "project")
        info = mlflow.sklearn.log_model(model, name="model", input_example=test_x[:5], skops_trusted_types=TRUSTED)
    version = mlflow.register_model(info.model_uri, options.name)
    print(f"run {run.info.run_id}, {options.name} {version.version}, accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
