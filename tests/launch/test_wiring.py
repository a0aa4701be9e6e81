"""Addresses: a PostgreSQL of one's own gets a database for MLflow, or one sentence why not."""

from __future__ import annotations

import psycopg2
import pytest

from slipway.launch import services, wiring
from slipway.launch.errors import LaunchError


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    with services.running(tmp_path_factory.mktemp("services"), durable=False) as found:
        yield found


def test_mlflow_gets_its_own_database_when_database_url_is_given(addresses, monkeypatch):
    monkeypatch.delenv("SLIPWAY_MLFLOW_DATABASE_URL", raising=False)
    for _ in range(2):  # the second time it is there
        store = wiring.external_mlflow_store(addresses.database)
    assert store.startswith("postgresql+psycopg2://")
    connection = psycopg2.connect(store.replace("+psycopg2", ""))
    assert connection.info.dbname == "slipway_mlflow"
    connection.close()


def test_mlflow_database_is_the_given_one_when_named(monkeypatch):
    monkeypatch.setenv("SLIPWAY_MLFLOW_DATABASE_URL", "postgres://me:pw@db/ml?sslmode=require")
    assert wiring.external_mlflow_store("unused") == "postgresql+psycopg2://me:pw@db/ml?sslmode=require"


def test_start_is_refused_without_the_password_when_the_database_does_not_answer(monkeypatch):
    monkeypatch.delenv("SLIPWAY_MLFLOW_DATABASE_URL", raising=False)
    with pytest.raises(LaunchError, match="DATABASE_URL names does not answer") as caught:
        wiring.external_mlflow_store("postgresql://me:hidden-password@127.0.0.1:9/none")
    assert "hidden-password" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_start_is_refused_when_the_database_url_is_no_address(monkeypatch):
    monkeypatch.delenv("SLIPWAY_MLFLOW_DATABASE_URL", raising=False)
    with pytest.raises(LaunchError, match="DATABASE_URL"):
        wiring.external_mlflow_store("postgresql:/what is this")


def test_start_is_refused_when_mlflows_database_may_not_be_made(addresses, monkeypatch):
    monkeypatch.delenv("SLIPWAY_MLFLOW_DATABASE_URL", raising=False)
    theirs = addresses.mlflow_database.replace("+psycopg2", "")  # a role that may not make databases
    with pytest.raises(LaunchError, match="may not create mlflow_mlflow"):
        wiring.external_mlflow_store(theirs)
