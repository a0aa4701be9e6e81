"""One MLflow server and one web process for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlflow import stack as stacks


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with stacks.mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, mlflow_url: str) -> Iterator[stacks.Stack]:
    folder: Path = tmp_path_factory.mktemp("web")
    with stacks.running(folder, mlflow_url) as running:
        yield running
