"""A real MLflow for uploads, and the light settings of the other rooms."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from registry.mlflow import client
from slipway import paths
from slipway.environment import environment
from tests.api.tools import light_settings as light_settings
from tests.engine.conftest import environments_root as environments_root
from tests.engine.conftest import models as models
from tests.engine.conftest import older_model as older_model
from tests.engine.conftest import older_python as older_python


@pytest.fixture
def shared_environments(environments_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Environments are prepared where the engine's tests have theirs, instead of anew in every test's home."""
    monkeypatch.setattr(paths, "environments", lambda: environments_root)
    return environments_root


@pytest.fixture
def use_mlflow(mlflow_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Points this process at the session's MLflow, with a home of its own."""
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path))
    monkeypatch.setattr(client, "environment", dataclasses.replace(environment, mlflow_url=mlflow_url))
