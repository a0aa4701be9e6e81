"""The one place that talks to MLflow about runs and registered versions.

What fails for a while is raised as `Unavailable`, what a person must mend as `EngineError`. Everything that
creates something looks for the tag `slipway.key` first, so that a job that was killed after the effect and
runs again finds what it made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from engine.errors import EngineError
from registry.mlflow.client import call, quoted
from registry.mlflow.facts import ArtifactInfo, MlflowVersion, RunFacts, run_facts, version_facts
from registry.mlflow.locations import location_of as location_of
from registry.mlflow.locations import source_location as source_location
from slipway.environment import environment

KEY = "slipway.key"
_JOB = "job:"
PAGE = 100
_LONGEST_PARAM, _LONGEST_TAG = 6000, 5000
_BATCH = 100

# Keys


def job_key(job_id: int) -> str:
    """The tag `slipway.key` of what a job makes."""
    return f"{_JOB}{job_id}"


def job_of_key(key: str) -> int | None:
    """The job that a key names; anybody may have written it."""
    number = key.removeprefix(_JOB)
    return int(number) if key.startswith(_JOB) and number.isdecimal() and len(number) <= 18 else None


# Runs


def run_ensure(experiment: str, *, tags: Mapping[str, str], run_name: str) -> str:
    """The id of the run whose tag `slipway.key` is that of `tags`, made if there is none."""
    key = tags.get(KEY, "")
    if not key:
        raise ValueError(f"run_ensure needs the tag {KEY}.")
    experiment_id = experiment_ensure(experiment)
    if found := _runs_of(experiment_id, key):
        return found[0]
    made = call(
        "POST",
        "runs/create",
        doing="creating a run",
        body={
            "experiment_id": experiment_id,
            "run_name": run_name,
            "start_time": _now(),
            "tags": _rows(tags, _LONGEST_TAG),
        },
    )
    # Another attempt may have made one between our looking and our making: the older one is the one.
    own, first = str(made["run"]["info"]["run_id"]), _runs_of(experiment_id, key)[0]
    if own != first:
        _run_delete(own)
    return first


def _runs_of(experiment_id: str, key: str) -> list[str]:
    """Ids of the runs with a key, the oldest first."""
    body = {
        "experiment_ids": [experiment_id],
        "filter": f"tags.`{KEY}` = {quoted(key)}",
        "max_results": 10,
        "order_by": ["attributes.start_time ASC"],
    }
    found = call("POST", "runs/search", doing="looking for a run", body=body)
    return [str(run["info"]["run_id"]) for run in found.get("runs", [])]


def _run_delete(run_id: str) -> None:
    call("POST", "runs/delete", doing="deleting a run", body={"run_id": run_id})


def experiment_ensure(name: str) -> str:
    """The id of the experiment, made if it is missing and brought back if somebody deleted it."""
    try:
        return _experiment_id(name)
    except EngineError as error:
        if error.code != "not_found":
            raise
    try:
        made = call("POST", "experiments/create", doing="creating an experiment", body={"name": name})
        return str(made["experiment_id"])
    except EngineError as error:
        if error.code != "resource_already_exists":
            raise
    return _experiment_id(name)


def _experiment_id(name: str) -> str:
    found = call(
        "GET",
        "experiments/get-by-name",
        doing="looking for an experiment",
        params={"experiment_name": name},
    )["experiment"]
    experiment_id = str(found["experiment_id"])
    if found.get("lifecycle_stage") == "deleted":
        body = {"experiment_id": experiment_id}
        call("POST", "experiments/restore", doing="restoring an experiment", body=body)
    return experiment_id


def run_log(
    run_id: str,
    *,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Adds to a run. Repeating it with the same values is fine; a parameter cannot be changed."""
    now = _now()
    rows: dict[str, list[dict[str, Any]]] = {
        "metrics": [
            {"key": key, "value": _number(value), "timestamp": now, "step": 0} for key, value in (metrics or {}).items()
        ],
        "params": _rows(params or {}, _LONGEST_PARAM),
        "tags": _rows(tags or {}, _LONGEST_TAG),
    }
    for start in range(0, max(len(part) for part in rows.values()), _BATCH):
        body = {name: part[start : start + _BATCH] for name, part in rows.items()}
        call("POST", "runs/log-batch", doing="logging to a run", body={"run_id": run_id, **body})


def run_finish(run_id: str, *, status: str = "FINISHED") -> None:
    """Ends a run as FINISHED, FAILED or KILLED. One that a dying attempt asked for with the same key, and that came
    about after we had looked, is deleted."""
    run = call("GET", "runs/get", doing="reading a run", params={"run_id": run_id})["run"]
    keys = [tag["value"] for tag in run["data"].get("tags", []) if tag["key"] == KEY]
    for other in _runs_of(str(run["info"]["experiment_id"]), keys[0]) if keys else []:
        if other != run_id:
            _run_delete(other)
    body = {"run_id": run_id, "status": status, "end_time": _now()}
    call("POST", "runs/update", doing="finishing a run", body=body)


def run_read(run_id: str) -> RunFacts:
    """Everything MLflow knows about a run."""
    return run_facts(call("GET", "runs/get", doing="reading a run", params={"run_id": run_id})["run"])


def run_link(run_id: str) -> str:
    """The run's page in MLflow's UI, for people."""
    return f"{environment.public_base}/mlflow/#/runs/{quote(run_id, safe='')}"


def artifacts_list(run_id: str, path: str = "") -> list[ArtifactInfo]:
    """The files and folders directly under `path` of a run; paths begin at the run's artifact root."""
    found: list[ArtifactInfo] = []
    params = {"run_id": run_id, **({"path": path} if path else {})}
    while True:
        answer = call("GET", "artifacts/list", doing="listing a run's files", params=params)
        found += [
            ArtifactInfo(str(row["path"]), bool(row.get("is_dir")), int(row.get("file_size", 0)))
            for row in answer.get("files", [])
        ]
        token = answer.get("next_page_token")
        if not token:
            return found
        params["page_token"] = token


# Registered versions


def version_pages(*, size: int = PAGE) -> Iterator[list[MlflowVersion]]:
    """All registered versions, newest first, a page at a time; stop reading when you have seen enough.

    A version registered meanwhile moves the others down: one may appear twice, none is left out.
    """
    params: dict[str, Any] = {
        "max_results": size,
        "order_by": ["creation_timestamp DESC", "name DESC", "version_number DESC"],
    }
    while True:
        answer = call("GET", "model-versions/search", doing="looking for new versions", params=params)
        yield [version_facts(row) for row in answer.get("model_versions", [])]
        token = answer.get("next_page_token")
        if not token:
            return
        params["page_token"] = token


def versions_since(cursor: int) -> list[MlflowVersion]:
    """Versions created at or after `cursor` (milliseconds of MLflow's clock), oldest first."""
    found: dict[tuple[str, int], MlflowVersion] = {}
    for page in version_pages():
        found |= {(row.name, row.version): row for row in page if row.created >= cursor}
        if not page or page[-1].created < cursor:
            break
    return sorted(found.values(), key=lambda row: (row.created, row.name, row.version))


def version_register(name: str, *, run_id: str, source: str, tags: Mapping[str, str]) -> int:
    """The number of the version whose tag `slipway.key` is that of `tags`, registered if there is none."""
    key = tags.get(KEY, "")
    if not key:
        raise ValueError(f"version_register needs the tag {KEY}.")
    try:
        call("POST", "registered-models/create", doing="creating a registered model", body={"name": name})
    except EngineError as error:
        if error.code != "resource_already_exists":
            raise
    found = call(
        "GET",
        "model-versions/search",
        doing="looking for a version",
        params={"filter": f"name = {quoted(name)} and tags.`{KEY}` = {quoted(key)}", "max_results": 1},
    )
    if rows := found.get("model_versions"):
        return int(rows[0]["version"])
    body: dict[str, Any] = {"name": name, "source": source, "tags": _rows(tags, _LONGEST_TAG)}
    if source.startswith("models:/m-"):
        body["model_id"] = source.removeprefix("models:/").partition("/")[0]
    if run_id:
        body["run_id"] = run_id
    made = call("POST", "model-versions/create", doing="registering a version", body=body)
    return int(made["model_version"]["version"])


def alias_set(name: str, alias: str, version: int) -> None:
    """Points an alias of a registered model at a version."""
    body = {"name": name, "alias": alias, "version": str(version)}
    call("POST", "registered-models/alias", doing="setting an alias", body=body)


def registered_model_tags(name: str) -> dict[str, str]:
    """The tags of a registered model. (`get` would gather its latest versions, 0.2 s at 10,000.)"""
    found = call(
        "GET",
        "registered-models/search",
        doing="reading a registered model",
        params={"filter": f"name = {quoted(name)}", "max_results": 1},
    ).get("registered_models", [])
    if not found:
        raise EngineError(f"MLflow has no registered model {name!r}.", code="not_found")
    return {str(row["key"]): str(row.get("value", "")) for row in found[0].get("tags", [])}


# Parts


def _now() -> int:
    return int(time.time() * 1000)


def _rows(pairs: Mapping[str, Any], longest: int) -> list[dict[str, str]]:
    return [{"key": str(key), "value": _text(value)[:longest]} for key, value in pairs.items()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _number(value: float) -> float | str:
    """JSON has no NaN; proto's JSON spells it."""
    value = float(value)
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
