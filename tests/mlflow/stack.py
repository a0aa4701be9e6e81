"""A real MLflow server and a real web process in front of it, with a few accounts to knock on the door."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg2

from slipway.launch import processes

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = """
import datetime as dt, json
import django
django.setup()
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.utils import timezone
from slipway.accounts.models import Membership, Project, User
from slipway.accounts.services import token_create
project = Project.objects.create(slug="vision", name="Vision")
tokens, sessions = {}, {}
for name, role in {"viewer": "viewer", "developer": "developer", "nobody": None, "root": None}.items():
    make = User.objects.create_superuser if name == "root" else User.objects.create_user
    user = make(name, password="pw")
    if role:
        Membership.objects.create(project=project, user=user, role=role)
    tokens[name] = token_create(user=user, name="t")[1]
    session = SessionStore()
    session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
    session[BACKEND_SESSION_KEY] = "slipway.accounts.backends.Patient"
    session.save()
    sessions[name] = session.session_key
developer = User.objects.get(username="developer")
tokens["read"] = token_create(user=developer, name="r", scope="read")[1]
tokens["expired"] = token_create(user=developer, name="e", expires_at=timezone.now() - dt.timedelta(1))[1]
tokens["revoked"] = token_create(user=developer, name="x")[1]
print(json.dumps([tokens, sessions]))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, child: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    """Until `url` answers with anything but a server error."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if child.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2).status_code < 500:
                return
        time.sleep(0.05)
    raise AssertionError(f"{url} does not answer:\n{processes.tail(log, 40)}")


@contextlib.contextmanager
def process(command: list[str], log: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child that is killed, with its own children, when the block ends."""
    child = processes.spawn(command, log=log, env=env, cwd=ROOT)
    try:
        yield child
    finally:
        processes.signal_group(child.pid, signal.SIGKILL)
        child.wait()


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """MLflow as the Procfile starts it, with SQLite. Yields its address with the prefix."""
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    env = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--static-prefix", "/mlflow", "--workers", "1", "--serve-artifacts"]
    command += ["--allowed-hosts", "localhost:*,127.0.0.1:*"]
    with process(command, folder / "mlflow.log", env) as child:
        wait_for(f"http://127.0.0.1:{port}/mlflow/health", child, folder / "mlflow.log")
        yield f"http://127.0.0.1:{port}/mlflow"


@contextlib.contextmanager
def web_server(folder: Path, mlflow_url: str, env: dict[str, str]) -> Iterator[tuple[str, int]]:
    """The web process as the Procfile starts it. Yields (address, process id)."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "slipway.asgi:application", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--loop", "uvloop", "--http", "slipway.heads:Protocol", "--ws", "none"]
    command += ["--no-access-log", "--no-server-header", "--timeout-graceful-shutdown", "3"]
    env = {**env, "SLIPWAY_MLFLOW_URL": mlflow_url, "SLIPWAY_PORT": str(port)}
    with process(command, folder / "web.log", env) as child:
        wait_for(f"http://127.0.0.1:{port}/mlflow/health", child, folder / "web.log")
        yield f"http://127.0.0.1:{port}", child.pid


@dataclass
class Stack:
    """What the tests talk to."""

    url: str
    pid: int
    mlflow_url: str
    folder: Path
    env: dict[str, str]
    tokens: dict[str, str] = field(repr=False)
    sessions: dict[str, str] = field(repr=False)

    def bearer(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[name]}"}


@contextlib.contextmanager
def own_database() -> Iterator[str]:
    """A fresh database on the tests' PostgreSQL."""
    name = f"slipway_door_{os.getpid()}_{secrets.token_hex(4)}"
    url = os.environ["DATABASE_URL"]
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        try:
            yield urlsplit(url)._replace(path=f"/{name}").geturl()
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def running(folder: Path, mlflow_url: str) -> Iterator[Stack]:
    """The web process in front of `mlflow_url`, on a database of its own with the accounts in it."""
    with own_database() as database:
        env = {
            **os.environ,
            "DATABASE_URL": database,
            "DJANGO_SETTINGS_MODULE": "slipway.settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform")]),
            "SLIPWAY_HOME": str(folder / "home"),
        }
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=env, check=True)
        made = subprocess.run([sys.executable, "-c", PEOPLE], cwd=ROOT, env=env, check=True, capture_output=True)
        tokens, sessions = json.loads(made.stdout.splitlines()[-1])
        with web_server(folder, mlflow_url, env) as (url, pid):
            yield Stack(url, pid, mlflow_url, folder, env, tokens, sessions)
