"""What the door and the gateway say when MLflow is not there, or comes back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import httpx
import pytest

from registry.mlflow import client, gateway
from slipway.api.problems import Unavailable
from tests.mlflow import stack as stacks
from tests.mlflow.stack import Stack

SEARCH = "/mlflow/api/2.0/mlflow/experiments/search"


def test_503_is_answered_and_ends_when_mlflow_is_away_and_comes_back(stack: Stack, tmp_path: Path) -> None:
    port = stacks.free_port()
    headers = stack.bearer("developer")
    with stacks.web_server(tmp_path, f"http://127.0.0.1:{port}/mlflow", stack.env) as (url, _):
        away = httpx.post(url + SEARCH, json={"max_results": 1}, headers=headers)
        assert away.status_code == 503
        assert away.headers["retry-after"] == "5"
        assert away.text.startswith("MLflow does not answer")
        with stacks.mlflow_server(tmp_path / "mlflow", port):
            assert httpx.post(url + SEARCH, json={"max_results": 1}, headers=headers).status_code == 200
        assert httpx.post(url + SEARCH, json={"max_results": 1}, headers=headers).status_code == 503


def test_503_is_answered_when_the_database_is_away(stack: Stack, tmp_path: Path) -> None:
    env = {**stack.env, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    with stacks.web_server(tmp_path, stack.mlflow_url, env) as (url, _):
        away = httpx.post(url + SEARCH, json={"max_results": 1}, headers=stack.bearer("developer"))
        assert (away.status_code, away.headers["retry-after"]) == (503, "5")
        assert "database" in away.text


def test_gateway_raises_unavailable_when_mlflow_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = f"http://127.0.0.1:{stacks.free_port()}/mlflow"
    monkeypatch.setattr(client, "environment", dataclasses.replace(client.environment, mlflow_url=nowhere))
    with pytest.raises(Unavailable, match="MLflow does not answer"):
        gateway.run_read("0" * 32)
