"""Retraining: runs a recorded MLflow project unchanged, against a tracking store of its own.

The store is SQLite and a folder inside the sandbox; nothing of the platform's MLflow is reachable. What the
script logged and registered is collected afterwards and handed back as files and plain data.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from engine.errors import EngineError

_MOST_ENTRIES = 10_000
_PARAMETER = re.compile(r"\{(\w+)\}")


def train(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Runs entry point params["entry_point"] ("main") of the project inputs["project"].

    params["parameters"]: values by name, over the defaults MLproject declares. inputs["data"], a file or folder,
    is reachable by the script as the parameter `data` (if the entry point declares it) and the environment
    variable SLIPWAY_DATA. {"run": {"params", "metrics", "tags", "name", "id"}, "model": {"name", "path"}}; files:
    out/artifacts/** of the newest run and out/model/**, the registered model.

    EngineError: code `project` for a bad MLproject, `training` when the script fails, `not-registered` when it
    registers no model.
    """
    work = Path.cwd() / "project"
    shutil.copytree(inputs["project"], work)
    data = inputs.get("data")
    command = _command(work, params, data)
    store = Path.cwd() / "store"
    (store / "artifacts").mkdir(parents=True)
    address = f"sqlite:///{store / 'mlflow.db'}"
    client = _client(address)
    experiment = client.create_experiment("retraining", artifact_location=str(store / "artifacts"))
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_REGISTRY_URI": address,
        "MLFLOW_EXPERIMENT_ID": experiment,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "PYTHONPATH": str(work),
    }
    if data is not None:
        environment["SLIPWAY_DATA"] = str(data)
    print(f"running {command[0]} with {len(command) - 1} arguments", flush=True)
    code = subprocess.run(command, cwd=work, env=environment, stdin=subprocess.DEVNULL).returncode
    if code:
        raise EngineError(f"The training script failed (exit code {code}); the log has its output.", code="training")
    return _collect(client, out)


def _client(address: str) -> Any:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["GIT_PYTHON_REFRESH"] = "quiet"
    import mlflow

    mlflow.set_tracking_uri(address)
    mlflow.set_registry_uri(address)
    return mlflow.MlflowClient(address, address)


def _command(project: Path, params: dict[str, Any], data: Path | None) -> list[str]:
    """The entry point's command as arguments: values are filled in one by one, and no shell reads them."""
    from engine.scan.mlmodel import read_yaml

    file = project / "MLproject"
    if not file.is_file():
        raise EngineError("The project has no MLproject file.", field="project", code="project")
    entries = read_yaml(file, "MLproject").get("entry_points")
    name = str(params.get("entry_point") or "main")
    entry = entries.get(name) if isinstance(entries, dict) else None
    if not isinstance(entry, dict) or not isinstance(entry.get("command"), str):
        raise EngineError(f"MLproject has no entry point '{name[:40]}'.", field="entry_point", code="project")
    declared = entry.get("parameters") or {}
    values = _values(declared, params.get("parameters") or {}, data)

    def fill(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise EngineError(f"The parameter '{found[1]}' has no value.", field="parameters", code="project")
        return values[found[1]]

    try:
        words = shlex.split(entry["command"])
    except ValueError as error:
        raise EngineError("The command in MLproject has an open quote.", field="project", code="project") from error
    if not words:
        raise EngineError("The command in MLproject is empty.", field="project", code="project")
    command = [_PARAMETER.sub(fill, word) for word in words]
    if command[0] in ("python", "python3"):
        command[0] = sys.executable
    return command


def _values(declared: Any, given: dict[str, Any], data: Path | None) -> dict[str, str]:
    if not isinstance(declared, dict):
        raise EngineError("The parameters in MLproject are no mapping.", field="project", code="project")
    unknown = [name for name in given if name not in declared]
    if unknown:
        raise EngineError(f"MLproject has no parameter '{unknown[0][:40]}'.", field="parameters", code="project")
    values = {}
    for name, about in declared.items():
        default = about.get("default") if isinstance(about, dict) else None
        if name in given:
            values[str(name)] = str(given[name])
        elif name == "data" and data is not None:
            values["data"] = str(data)
        elif default is not None:
            values[str(name)] = str(default)
    return values


def _collect(client: Any, out: Path) -> dict[str, Any]:
    """The registered model and its run, or the newest run; files are copied into `out`."""
    import mlflow.artifacts

    versions = [
        version
        for model in client.search_registered_models(max_results=100)
        for version in client.search_model_versions(f"name='{model.name}'", max_results=100)
    ]
    if not versions:
        raise EngineError(
            "The training script registered no model: give log_model a registered_model_name, or call "
            "mlflow.register_model.",
            code="not-registered",
        )
    version = max(versions, key=lambda each: (each.creation_timestamp, int(each.version)))
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=100)
    run = next((each for each in runs if each.info.run_id == version.run_id), runs[0] if runs else None)
    if run is None:
        raise EngineError("The training script logged no run.", code="not-registered")
    target = out / "model"
    fetched = Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.version}"))
    shutil.copytree(fetched, target)
    (out / "artifacts").mkdir()
    if client.list_artifacts(run.info.run_id):
        fetched = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=""))
        shutil.copytree(fetched, out / "artifacts", dirs_exist_ok=True)
    return {
        "run": {
            "id": run.info.run_id,
            "name": run.info.run_name,
            "params": _capped(run.data.params),
            "metrics": {key: value for key, value in _capped(run.data.metrics).items() if _is_json(value)},
            "tags": {
                key: value for key, value in _capped(run.data.tags).items() if not key.startswith("mlflow.source")
            },
        },
        "model": {"name": version.name, "path": "model"},
    }


def _capped(values: dict[str, Any]) -> dict[str, Any]:
    return dict(list(values.items())[:_MOST_ENTRIES])


def _is_json(value: float) -> bool:
    """Not a number and infinity are metrics in MLflow, but not in JSON."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
