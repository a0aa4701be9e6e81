"""A real MLflow for uploads, and the light settings of the other rooms."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.mlflow import client
from slipway.environment import environment
from tests.api.tools import light_settings as light_settings
from tests.mlflow import stack


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with stack.mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture
def use_mlflow(mlflow_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Points this process at the session's MLflow, with a home of its own."""
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path))
    monkeypatch.setattr(client, "environment", dataclasses.replace(environment, mlflow_url=mlflow_url))
