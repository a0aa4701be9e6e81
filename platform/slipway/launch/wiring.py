"""The environment that all processes share: addresses, ports and secrets of one home."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import psycopg2
from psycopg2 import sql

from engine.export.environments import digest_of
from slipway import paths
from slipway.launch import keys
from slipway.launch.errors import LaunchError
from slipway.launch.installer import package_environment
from slipway.launch.postgres import Postgres
from slipway.launch.redisserver import Redis


def environment(*, postgres: Postgres | None, redis: Redis | None, mlflow_port: int, secrets: Path) -> dict[str, str]:
    """What `up` adds to its own environment; also what SLIPWAY_HOME/env holds."""
    host, mlflow = paths.host(), f"http://127.0.0.1:{mlflow_port}/mlflow"
    reachable = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104
    database = postgres.url("slipway") if postgres else os.environ["DATABASE_URL"]
    store = postgres.url("mlflow", scheme="postgresql+psycopg2") if postgres else external_mlflow_store(database)
    return {
        "SLIPWAY_HOME": str(paths.home()),
        "SLIPWAY_HOST": host,
        "SLIPWAY_PORT": str(paths.port()),
        "SLIPWAY_SERVING_PORT": str(paths.serving_port()),
        "SLIPWAY_GRPC_PORT": str(paths.grpc_port()),
        "SLIPWAY_MLFLOW_PORT": str(mlflow_port),
        "SLIPWAY_MLFLOW_URL": mlflow,
        "SLIPWAY_URL": f"http://{reachable}:{paths.port()}",
        "SLIPWAY_SERVING_URL": _given("SLIPWAY_SERVING_URL") or f"http://{reachable}:{paths.serving_port()}",
        "SLIPWAY_CONTROL_URL": f"http://{reachable}:{paths.port()}",
        "SLIPWAY_SERVING_HOME": str(paths.serving()),
        "SLIPWAY_SIGNING_KEY_FILE": str(paths.signing_key()),
        # There once something was exported that needs it; until then servers say that it is missing.
        "SLIPWAY_PMML_PYTHON": _given("SLIPWAY_PMML_PYTHON") or str(_pmml_python()),
        "SLIPWAY_TRUST_KEYS": _given("SLIPWAY_TRUST_KEYS") or str(paths.trusted_keys()),
        "SLIPWAY_SECRET_KEY": _given("SLIPWAY_SECRET_KEY") or keys.secret(secrets, "secret-key"),
        "SLIPWAY_SERVING_TOKEN": _given("SLIPWAY_SERVING_TOKEN") or keys.secret(secrets, "serving-token"),
        "DATABASE_URL": database,
        "REDIS_URL": redis.url() if redis else os.environ["REDIS_URL"],
        "DJANGO_SETTINGS_MODULE": "slipway.settings",
        # Read by `mlflow server`; the address holds a password, so it stays off the command line.
        "MLFLOW_BACKEND_STORE_URI": store,
        "MLFLOW_ARTIFACTS_DESTINATION": _given("SLIPWAY_ARTIFACTS_DESTINATION") or str(paths.mlflow_artifacts()),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        # Prepared environments are installed by uv, which reads none of pip's settings.
        **package_environment(Path(sys.executable)),
        **_usable_home(),
    }


def _pmml_python() -> Path:
    """Interpreter of the environment in which PMML is exported and scored."""
    return paths.environments() / digest_of(paths.REPOSITORY / "locks" / "pmml.txt") / "bin" / "python"


def _given(name: str) -> str:
    """A variable of the person's; empty counts as not set."""
    return os.environ.get(name, "").strip()


def _usable_home() -> dict[str, str]:
    """Libraries write to HOME: where there is none, ours serves."""
    given = os.environ.get("HOME", "")
    return {} if given and os.access(given, os.W_OK) else {"HOME": str(paths.home())}


def write_environment_file(env: dict[str, str]) -> None:
    """SLIPWAY_HOME/env: read by `honcho -e FILE start`, and by a shell with `set -a; . FILE`."""
    lines = [f"{name}={shlex.quote(value)}" for name, value in sorted(env.items())]
    keys.write_private(paths.environment_file(), "\n".join(lines) + "\n")


def external_mlflow_store(database_url: str) -> str:
    """MLflow's database beside Slipway's on a PostgreSQL of your own, made if it is missing."""
    given = _given("SLIPWAY_MLFLOW_DATABASE_URL")
    if given:
        return _for_sqlalchemy(given)
    name = unquote(urlsplit(database_url).path.lstrip("/")) + "_mlflow"
    try:
        connection = psycopg2.connect(database_url, connect_timeout=10)
    except psycopg2.Error as error:
        reason = str(error).strip().splitlines()[-1:] or ["no reason given"]
        raise LaunchError(f"The database that DATABASE_URL names does not answer: {reason[0]}") from None
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg2.errors.InsufficientPrivilege:
        raise LaunchError(
            f"MLflow needs a database of its own and DATABASE_URL's user may not create {name}; "
            "create it or set SLIPWAY_MLFLOW_DATABASE_URL."
        ) from None
    finally:
        connection.close()
    parts = urlsplit(database_url)
    return _for_sqlalchemy(urlunsplit(parts._replace(path="/" + quote(name))))


def _for_sqlalchemy(url: str) -> str:
    """SQLAlchemy 2.1 reads `postgresql://` as psycopg 3, which is not what we install."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg2://{rest}" if separator and scheme in {"postgres", "postgresql"} else url
