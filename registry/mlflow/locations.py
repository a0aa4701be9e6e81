"""Where the bytes of a registered version lie, whichever way its source is written.

The answer is always inside MLflow's own artifact store. Addresses elsewhere (a laptop's folder, somebody's
bucket or web server) are refused: Slipway would read them with its own rights.
"""

from __future__ import annotations

import re

from engine.errors import EngineError
from registry.mlflow.client import SCHEME, call, quoted, store_path
from registry.mlflow.facts import MlflowVersion, run_facts

_LOGGED_MODEL = re.compile(r"models:/(m-[0-9a-zA-Z]+)/?")
_REGISTERED = re.compile(r"models:/([^/@]+)/([0-9]+)/?")
_RUN = re.compile(r"runs:/([0-9a-zA-Z]+)(?:/(.+?))?/?")
_DEEPEST = 5


def source_location(version: MlflowVersion) -> str:
    """`mlflow-artifacts:/…` of the folder that holds the version's files."""
    return location_of(version.source)


def location_of(source: str, *, depth: int = 0) -> str:
    """`mlflow-artifacts:/…` of a source: that itself, `runs:/id/path`, `models:/m-id`, `models:/name/3`."""
    if depth > _DEEPEST:
        raise EngineError("This version is a copy of a copy of … more often than can be followed.", code="source")
    if match := _LOGGED_MODEL.fullmatch(source):
        return _logged_model(match[1])
    if match := _REGISTERED.fullmatch(source):
        params = {"name": match[1], "version": match[2]}
        found = call("GET", "model-versions/get-download-uri", doing="locating a version", params=params)
        return location_of(str(found.get("artifact_uri", "")), depth=depth + 1)
    if match := _RUN.fullmatch(source):
        return _run_path(match[1], match[2] or "")
    return SCHEME + store_path(source)


def _logged_model(model_id: str) -> str:
    found = call("GET", f"logged-models/{model_id}", doing="locating a logged model")
    return SCHEME + store_path(str(found["model"]["info"]["artifact_uri"]))


def _run_path(run_id: str, path: str) -> str:
    """A path of a run. MLflow 3 keeps logged models beside the runs, under the name that the path gives."""
    given = call("GET", "runs/get", doing="reading a run", params={"run_id": run_id})
    run = run_facts(given["run"])
    folder = SCHEME + store_path(f"{run.artifact_uri}/{path}" if path else run.artifact_uri)
    listed = call(
        "GET",
        "artifacts",
        doing="listing files",
        params={"path": store_path(folder)},
        api="2.0/mlflow-artifacts",
    )
    if listed.get("files") or not path:
        return folder
    found = call(
        "POST",
        "logged-models/search",
        doing="locating a logged model",
        body={
            "experiment_ids": [run.experiment_id],
            "filter": f"source_run_id = {quoted(run_id)} AND name = {quoted(path)}",
            "max_results": 1,
        },
    ).get("models", [])
    return _logged_model(str(found[0]["info"]["model_id"])) if found else folder
