"""One web process for the whole session, in front of its MLflow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.mlflow import client
from slipway.environment import environment
from tests.mlflow import stack as stacks


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, mlflow_url: str) -> Iterator[stacks.Stack]:
    folder: Path = tmp_path_factory.mktemp("web")
    with stacks.running(folder, mlflow_url) as running:
        yield running


@pytest.fixture
def use_mlflow(mlflow_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points the gateway and the storage of this process at the session's MLflow."""
    changed = dataclasses.replace(environment, mlflow_url=mlflow_url)
    monkeypatch.setattr(client, "environment", changed)
