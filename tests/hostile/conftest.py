"""One server and one project for all hostile files, and a meter for what an answer costs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from registry.mlflow import client
from slipway import paths
from slipway.environment import environment
from tests.mlflow import stack as stacks

SECONDS, MEGABYTES = 2.0, 200


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, mlflow_url: str) -> Iterator[stacks.Stack]:
    with stacks.running(tmp_path_factory.mktemp("web"), mlflow_url) as running:
        yield running


@pytest.fixture
def use_mlflow(mlflow_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Points this process at the session's MLflow, with a home of its own."""
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(client, "environment", dataclasses.replace(environment, mlflow_url=mlflow_url))


def stored(home: Path) -> set[str]:
    """Every file below the cache and the scratch folder of a home."""
    found = [*(home / "cache").rglob("*"), *(home / "scratch").rglob("*")]
    return {str(path) for path in found if not path.is_dir()}


def rows(database: str) -> dict[str, int]:
    """How many rows the server's database has of what an upload makes."""
    with contextlib.closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        counts = {}
        for table in ("registry_model", "registry_version", "registry_artifact", "jobs_job"):
            cursor.execute(f"SELECT count(*) FROM {table}")
            counts[table] = int(cursor.fetchone()[0])
        return counts


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@contextlib.contextmanager
def metered(pid: int, what: object) -> Iterator[None]:
    """At most 2 s and 200 MB more in process `pid`. A busy machine gets the time that its load takes away."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak counts from now
    before, used, started = _resident_bytes(pid), _processor_seconds(), time.monotonic()
    yield
    wall, grown = time.monotonic() - started, (_peak_bytes(pid) - before) / 1024**2
    crowd = max(1.0, os.getloadavg()[0])
    own = pid == os.getpid() and _processor_seconds() - used <= SECONDS
    assert wall <= SECONDS or wall <= SECONDS * crowd or (own and wall <= 4 * SECONDS), f"{what}: {wall:.1f} s"
    assert grown <= MEGABYTES, f"{what}: grew by {grown:.0f} MB"


def quiet(text: str, *homes: Path) -> None:
    """No stack trace and no place of this machine in an answer."""
    inner = ["Traceback", 'File "', "site-packages", str(paths.REPOSITORY), *map(str, homes)]
    assert not [word for word in inner if word in text], text
