"""The embedded PostgreSQL and Redis, real ones, as whoever runs the tests and as a normal user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from slipway import paths
from slipway.launch import services
from slipway.launch.errors import LaunchError

NOBODY = 65534


@pytest.fixture
def embedded(tmp_path):
    found = services.Embedded(tmp_path / "with a space", durable=False)
    yield found
    found.stop()
    assert not found.redis.sockets.exists()
    assert not found.postgres.socket_folder.exists()


def ask(addresses: services.Addresses, statement: str, database: str = "database"):
    url = getattr(addresses, database).replace("+psycopg2", "")
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


def test_services_answer_only_on_sockets_when_started(embedded):
    addresses = embedded.start()
    assert ask(addresses, "SHOW listen_addresses") == ""
    assert redis.Redis.from_url(addresses.redis).config_get("port") == {"port": "0"}
    assert embedded.redis.sockets.stat().st_mode & 0o777 == 0o700
    assert embedded.postgres.socket_folder.stat().st_mode & 0o777 == 0o700


def test_data_is_kept_when_started_twice(embedded):
    ask(embedded.start(), "CREATE TABLE kept AS SELECT 7 AS seven")
    embedded.stop()
    assert ask(embedded.start(), "SELECT seven FROM kept") == 7


def test_services_start_again_when_both_were_killed(embedded):
    addresses = embedded.start()
    ask(addresses, "CREATE TABLE kept AS SELECT 7 AS seven")
    backend = psycopg2.connect(addresses.database)  # a session that outlives its postmaster for a moment
    for name in ("postgres", "redis"):
        os.kill(embedded.pid(name), signal.SIGKILL)
    for child in embedded._children.values():
        child.wait()
    started = time.monotonic()
    addresses = embedded.start()
    assert time.monotonic() - started < 5
    assert ask(addresses, "SELECT seven FROM kept") == 7
    assert redis.Redis.from_url(addresses.redis).ping()
    backend.close()


def test_postgres_starts_again_when_nobody_has_reaped_the_killed_one(embedded):
    embedded.start()
    killed = embedded._children.pop("postgres")
    os.kill(killed.pid, signal.SIGKILL)
    assert ask(embedded.start(), "SELECT 7") == 7
    assert killed.wait() == -signal.SIGKILL


def test_password_is_needed_when_connecting(embedded):
    addresses = embedded.start()
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(dbname="postgres", user="postgres", host=str(embedded.postgres.socket_folder))
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(unix_socket_path=str(embedded.redis.socket), retry=Retry(NoBackoff(), 0)).ping()
    assert ask(addresses, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False


def test_mlflow_cannot_open_slipways_database_when_it_has_its_own(embedded):
    addresses = embedded.start()
    assert ask(addresses, "SELECT current_user", "mlflow_database") == "mlflow"
    stranger = addresses.mlflow_database.replace("+psycopg2", "").replace("/mlflow?", "/slipway?")
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        psycopg2.connect(stranger)


def test_start_is_refused_when_the_data_is_of_another_version(embedded):
    embedded.start()
    embedded.stop()
    (embedded.postgres.data / "PG_VERSION").write_text("16\n")
    with pytest.raises(LaunchError, match="made by PostgreSQL 16, but this is 18"):
        embedded.start()
    (embedded.postgres.data / "PG_VERSION").write_text("18\n")


def test_broken_start_tells_the_log_when_postgres_cannot_run(embedded):
    embedded.start()
    embedded.stop()
    (embedded.postgres.data / "global" / "pg_control").unlink()
    with pytest.raises(LaunchError, match=r"(?s)postgres did not start.*pg_control"):
        embedded.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can close a folder to PostgreSQL's own user")
def test_postgres_runs_below_a_closed_folder_when_we_are_root(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    before = closed.stat()
    embedded = services.Embedded(closed / "home", durable=False)
    try:
        embedded.start()
        assert Path(f"/proc/{embedded.pid('postgres')}").stat().st_uid != 0
        assert (closed.stat().st_mode, closed.stat().st_uid) == (before.st_mode, before.st_uid)
    finally:
        embedded.stop()


NORMAL_USER = """
import os, subprocess, sys, time
from pathlib import Path
from slipway.launch import postgres
server = postgres.for_folder(Path(sys.argv[1]) / "home", durable=False)
for _ in range(2):
    server.prepare()
    child = server.start(Path(sys.argv[1]) / "log", dict(os.environ))
    deadline = time.monotonic() + 20
    while not server.is_ready() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    server.ensure_databases()
    child.send_signal(server.stop_signal)
    print("ended with", child.wait(10))
"""


def _as_nobody() -> list[str] | None:
    """A command for a Python that a normal user may run and that can use our packages."""
    minor = f"python3.{sys.version_info[1]}"
    for candidate in (sys.executable, f"/usr/bin/{minor}", f"/usr/local/bin/{minor}"):
        as_user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", candidate]
        try:
            done = subprocess.run([*as_user, "-c", "import psycopg2"], env=_normal_environment(), cwd="/")
        except FileNotFoundError:
            return None
        if done.returncode == 0:
            return as_user
    return None


def _normal_environment() -> dict[str, str]:
    site = Path(psycopg2.__file__).parents[1]
    return {"PYTHONPATH": f"{paths.REPOSITORY / 'platform'}:{site}", "PATH": os.defpath, "HOME": ""}


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests here already run as a normal user")
def test_postgres_starts_twice_when_run_by_a_normal_user():
    as_user = _as_nobody()
    if as_user is None:
        pytest.skip("no Python here that a normal user may run")
    home = Path(tempfile.mkdtemp(prefix="slipway-normal-"))
    os.chown(home, NOBODY, NOBODY)
    try:
        done = subprocess.run(
            [*as_user, "-c", NORMAL_USER, str(home)],
            env=_normal_environment(),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        shutil.rmtree(home)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ended with 0\nended with 0\n"
