"""Embedded PostgreSQL and Redis without a supervisor: for tests, benches and one-off scripts.

with services.running(folder, durable=False) as addresses:
    os.environ["DATABASE_URL"] = addresses.database
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.launch import postgres, processes, redisserver
from slipway.launch.errors import LaunchError

START_LIMIT = 60.0
STOP_LIMIT = 10.0


@dataclass(frozen=True)
class Addresses:
    """Where the services answer."""

    database: str
    mlflow_database: str
    redis: str


class Embedded:
    """The two services in one folder; `start` and `stop` may be called again and again."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.postgres = postgres.for_folder(self.folder, durable=durable)
        self.redis = redisserver.for_folder(self.folder)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def addresses(self) -> Addresses:
        return Addresses(
            database=self.postgres.url("slipway"),
            mlflow_database=self.postgres.url("mlflow", scheme="postgresql+psycopg2"),
            redis=self.redis.url(),
        )

    def pid(self, name: str) -> int:
        """The process id of `postgres` or `redis`."""
        return self._children[name].pid

    def start(self) -> Addresses:
        """Start both (those that run are left alone) and wait until they answer."""
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        for service in (self.postgres, self.redis):
            child = self._children.get(service.name)
            if child is not None and child.poll() is None:
                continue
            service.prepare()
            log = logs / f"{service.name}.log"
            self._children[service.name] = service.start(log, dict(os.environ))
        for service in (self.postgres, self.redis):
            self._wait(service)
        self.postgres.ensure_databases()
        return self.addresses

    def stop(self) -> None:
        """Stop both, at the latest after STOP_LIMIT seconds each."""
        services = {service.name: service for service in (self.redis, self.postgres)}
        for name, child in self._children.items():
            if child.poll() is None:
                child.send_signal(services[name].stop_signal)
        for child in self._children.values():
            try:
                child.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children.clear()
        for place in (self.redis.sockets, self.postgres.socket_folder):
            shutil.rmtree(place, ignore_errors=True)

    def _wait(self, service: postgres.Postgres | redisserver.Redis) -> None:
        child = self._children[service.name]
        deadline = time.monotonic() + START_LIMIT
        while not service.is_ready():
            if child.poll() is not None or time.monotonic() > deadline:
                log = self.folder / "logs" / f"{service.name}.log"
                raise LaunchError(f"{service.name} did not start. Its log ends:\n{processes.tail(log)}")
            time.sleep(0.02)


@contextmanager
def running(folder: Path, *, durable: bool = True) -> Iterator[Addresses]:
    """PostgreSQL and Redis in `folder` for as long as the block runs."""
    embedded = Embedded(folder, durable=durable)
    try:
        yield embedded.start()
    finally:
        embedded.stop()
