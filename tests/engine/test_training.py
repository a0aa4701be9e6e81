"""Recorded MLflow projects are retrained unchanged, in the sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.sandbox import Limits
from engine.scan.source import scan
from tests.engine.conftest import Task

TRAIN = "engine.sandbox.training:train"

MLPROJECT = """
name: iris
entry_points:
  main:
    parameters:
      c: {type: float, default: 1.0}
      data: {type: path, default: ""}
      note: {type: string, default: none}
    command: "python train.py --c {c} --note {note}"
"""
SCRIPT = """
import argparse, os, mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

options = argparse.ArgumentParser()
options.add_argument("--c", type=float)
options.add_argument("--note")
options = options.parse_args()
x, y = load_iris(return_X_y=True)
with mlflow.start_run(run_name="again") as run:
    model = LogisticRegression(C=options.c, max_iter=500).fit(x, y)
    mlflow.log_params({"c": options.c, "note": options.note, "data": os.environ.get("SLIPWAY_DATA", "")})
    mlflow.log_metric("accuracy", model.score(x, y))
    mlflow.log_metric("broken", float("nan"))
    mlflow.set_tag("team", "flowers")
    mlflow.log_text("some words", "notes/note.txt")
    REGISTER
"""
WAYS = {
    "log_model": 'mlflow.sklearn.log_model(model, name="model", registered_model_name="iris", pip_requirements=[])',
    "register_model": (
        'logged = mlflow.sklearn.log_model(model, name="model", pip_requirements=[]); '
        'mlflow.register_model(logged.model_uri, "iris")'
    ),
    "nothing": "pass",
    "fails": "raise SystemExit(3)",
    "own experiment": (
        'mlflow.end_run(); mlflow.set_experiment("mine"); '
        'mlflow.sklearn.log_model(model, name="model", registered_model_name="iris", pip_requirements=[])'
    ),
}


def project(folder: Path, way: str, mlproject: str = MLPROJECT) -> Path:
    folder.mkdir()
    (folder / "MLproject").write_text(mlproject)
    (folder / "train.py").write_text(SCRIPT.replace("REGISTER", WAYS[way]))
    return folder


@pytest.mark.parametrize("way", ["log_model", "register_model", "own experiment"])
def test_model_and_run_come_back_when_the_script_registers(way: str, task: Task, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b\n1,2\n")
    result = task(
        TRAIN,
        {"parameters": {"c": 0.5, "note": "two words; rm -rf $HOME"}},
        project=project(tmp_path / "p", way),
        data=rows,
        limits=Limits(seconds=200),
    )
    value = result.value
    assert value["model"] == {"name": "iris", "path": "model"}
    assert scan(result.files / "model")["verdict"] == "clean"
    if way != "own experiment":
        run = value["run"]
        assert run["params"] == {"c": "0.5", "note": "two words; rm -rf $HOME", "data": str(rows)}
        assert run["metrics"]["accuracy"] > 0.9 and "broken" not in run["metrics"]
        assert run["tags"]["team"] == "flowers" and run["name"] == "again"
        assert (result.files / "artifacts" / "notes" / "note.txt").read_text() == "some words"


@pytest.mark.parametrize(("way", "code"), [("nothing", "not-registered"), ("fails", "training")])
def test_error_says_so_when_the_script_gives_no_model(way: str, code: str, task: Task, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        task(TRAIN, {}, project=project(tmp_path / "p", way), limits=Limits(seconds=200))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("mlproject", "params"),
    [
        ("name: x", {}),
        ("entry_points: {main: {command: 'python \"x'}}", {}),
        ("entry_points: {main: {command: 'python {c}'}}", {}),
        ("entry_points: {main: {command: ''}}", {}),
        (MLPROJECT, {"entry_point": "other"}),
        (MLPROJECT, {"parameters": {"unknown": 1}}),
        ("a: !!python/name:os.system", {}),
    ],
)
def test_error_names_mlproject_when_it_is_wrong(mlproject: str, params: dict[str, Any], tmp_path: Path) -> None:
    from engine.sandbox.training import _command

    with pytest.raises(EngineError):
        _command(project(tmp_path / "p", "nothing", mlproject), params, None)
