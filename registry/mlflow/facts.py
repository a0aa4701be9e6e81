"""What we read out of MLflow, as plain records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PROMPT_TAG = "mlflow.prompt.is_prompt"


@dataclass(frozen=True)
class EntryPoint:
    """How a run was started, as far as MLflow recorded it; what retraining can start again."""

    source_type: str = ""
    source_name: str = ""
    entry_point: str = ""
    git_commit: str = ""
    git_url: str = ""

    @property
    def is_project(self) -> bool:
        return self.source_type == "PROJECT" or bool(self.entry_point)


@dataclass(frozen=True)
class RunFacts:
    """One run: `params`, last `metrics`, `tags` and where its files are."""

    run_id: str
    experiment_id: str
    name: str
    status: str
    artifact_uri: str
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    entry_point: EntryPoint = EntryPoint()


@dataclass(frozen=True)
class ArtifactInfo:
    """One line of a folder; `path` begins at the folder that was listed."""

    path: str
    is_dir: bool
    size: int


@dataclass(frozen=True)
class MlflowVersion:
    """One registered version. Times are milliseconds of MLflow's clock. Aliases are only filled in
    where a single model is read: MLflow leaves them out of searches."""

    name: str
    version: int
    source: str
    run_id: str
    status: str
    tags: dict[str, str]
    aliases: tuple[str, ...]
    created: int
    updated: int
    description: str

    @property
    def is_prompt(self) -> bool:
        return self.tags.get(PROMPT_TAG, "").lower() == "true"

    @property
    def is_ready(self) -> bool:
        return self.status in {"READY", ""}


def pairs(rows: list[dict[str, Any]] | None) -> dict[str, str]:
    """MLflow's `[{"key": …, "value": …}]` as a dict."""
    return {str(row["key"]): str(row.get("value", "")) for row in rows or []}


def number(value: Any) -> float:
    """A metric's value: proto's JSON writes NaN and the infinities as words."""
    return float(value)


def run_facts(given: dict[str, Any]) -> RunFacts:
    """A run as `runs/get` tells it."""
    info, data = given["info"], given.get("data", {})
    tags = pairs(data.get("tags"))
    return RunFacts(
        run_id=str(info["run_id"]),
        experiment_id=str(info.get("experiment_id", "")),
        name=str(info.get("run_name", "")),
        status=str(info.get("status", "")),
        artifact_uri=str(info.get("artifact_uri", "")),
        params=pairs(data.get("params")),
        metrics={str(row["key"]): number(row.get("value", 0.0)) for row in data.get("metrics", [])},
        tags=tags,
        entry_point=EntryPoint(
            source_type=tags.get("mlflow.source.type", ""),
            source_name=tags.get("mlflow.source.name", ""),
            entry_point=tags.get("mlflow.project.entryPoint", ""),
            git_commit=tags.get("mlflow.source.git.commit", ""),
            git_url=tags.get("mlflow.source.git.repoURL", tags.get("mlflow.gitRepoURL", "")),
        ),
    )


def version_facts(given: dict[str, Any]) -> MlflowVersion:
    """A version as `model-versions/search` tells it."""
    return MlflowVersion(
        name=str(given["name"]),
        version=int(given["version"]),
        source=str(given.get("source", "")),
        run_id=str(given.get("run_id", "")),
        status=str(given.get("status", "")),
        tags=pairs(given.get("tags")),
        aliases=tuple(str(alias) for alias in given.get("aliases", [])),
        created=int(given.get("creation_timestamp", 0)),
        updated=int(given.get("last_updated_timestamp", 0)),
        description=str(given.get("description", "")),
    )
