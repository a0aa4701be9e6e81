"""Pytest plug-in (`-p tests.embedded`): a real PostgreSQL and Redis before Django reads its settings.

The controller starts them once; xdist's workers inherit the addresses.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "platform"), str(ROOT)]
_started: list[tuple[object, Path]] = []


def _start() -> None:
    if "SLIPWAY_TEST_HOME" in os.environ:
        return
    from engine.formats import signing
    from slipway.launch import keys, services

    home = Path(tempfile.mkdtemp(prefix="slipway-test-"))
    keys.write_private(home / "signing-key.pem", signing.generate().decode())
    embedded = services.Embedded(home / "services", durable=False)
    addresses = embedded.start()
    _started.append((embedded, home))
    os.environ.update(
        SLIPWAY_TEST_HOME=str(home),
        SLIPWAY_HOME=str(home / "home"),
        SLIPWAY_SIGNING_KEY_FILE=str(home / "signing-key.pem"),
        SLIPWAY_SECRET_KEY="secret-of-the-tests-" + "0" * 40,
        SLIPWAY_SERVING_TOKEN="serving-token-of-the-tests",
        SLIPWAY_LEASE_SECONDS="3",
        SLIPWAY_LOG_LEVEL="WARNING",
        DATABASE_URL=addresses.database,
        SLIPWAY_TEST_MLFLOW_DATABASE=addresses.mlflow_database,
        REDIS_URL=addresses.redis,
        DJANGO_SETTINGS_MODULE="slipway.settings",
    )


_start()


def pytest_unconfigure(config: pytest.Config) -> None:
    while _started:
        embedded, home = _started.pop()
        embedded.stop()  # type: ignore[attr-defined]
        shutil.rmtree(home, ignore_errors=True)
