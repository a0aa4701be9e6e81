"""`python -m slipway.launch.up`: everything that Slipway needs, in the foreground, by one command."""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from honcho.environ import parse_procfile

from slipway import paths
from slipway.launch import checks, keys, postgres, processes, redisserver, wiring
from slipway.launch.errors import LaunchError
from slipway.launch.logfiles import LogFiles
from slipway.launch.supervisor import Child, StopRequested, Supervisor
from slipway.launch.words import answers, closing, say

START_LIMIT = 120.0
DEMO_LIMIT = 900.0
# Serving stops after whatever uses it, the stores after everything.
PHASES = {"serving": 1, "redis": 2, "postgres": 2}
LIMITS = {"serving": 4.0, "postgres": 4.0, "redis": 2.0}
# What the demo must do without: it is a client.
PRIVATE = {
    "DATABASE_URL",
    "REDIS_URL",
    "SLIPWAY_SECRET_KEY",
    "SLIPWAY_SERVING_TOKEN",
    "SLIPWAY_ADMIN_PASSWORD",
}


class Up:
    """One start of one home."""

    def __init__(self, procfile: Path, *, commands: Sequence[str] = ("migrate", "bootstrap")) -> None:
        self.commands = commands
        self.home = checks.home_folder()
        self.lock = checks.only_one(self.home)
        self.key = hashlib.sha256(str(self.home).encode()).hexdigest()[:16]
        processes.end_all(lambda: processes.marked(f"{self.key}:"))
        checks.disk_space(self.home)
        checks.free_ports(paths.host())
        self.lines = parse_procfile(procfile.read_text()).processes
        self.secrets = keys.private_folder(paths.secrets())
        keys.signing_keys()
        logs = LogFiles(paths.logs(), verbose=os.environ.get("SLIPWAY_VERBOSE") == "1", show=say)
        self.supervisor = Supervisor(logs=logs, key=self.key, say=say)
        self.env: dict[str, str] = {}

    def run(self) -> None:
        """Start everything, say where to look, and stay until stopped. Ends with everything ended."""
        warden = self._start_warden()
        self.supervisor.catch_signals()
        try:
            self._start()
            say(closing(self.env["SLIPWAY_URL"]))
            self.supervisor.forever()
        except StopRequested:
            say("Stopping …")
        finally:
            self.supervisor.stop()
            self._remove_sockets()
            assert warden.stdin is not None
            warden.stdin.close()
            warden.wait()
        say("Stopped.")

    def _start(self) -> None:
        self._start_stores()
        self._start_line("mlflow")
        self._admin_password()
        if self.commands:
            say("Preparing the database …")
            self._prepare()
        for name in self.lines:
            if name != "mlflow":
                self._start_line(name)
        waiting = [name for name in ("mlflow", "serving", "web") if name in self.lines]
        say(f"Starting {', '.join(self.lines)} …")
        self.supervisor.until_ready(*waiting, limit=START_LIMIT)
        self.supervisor.until_ready(*self.lines, limit=START_LIMIT)
        self._demo()

    def _start_stores(self) -> None:
        own_pg = None if os.environ.get("DATABASE_URL") else postgres.for_folder(self.home)
        own_redis = None if os.environ.get("REDIS_URL") else redisserver.for_folder(self.home)
        stores = [store for store in (own_pg, own_redis) if store is not None]
        if stores:
            say(f"Starting {' and '.join(store.name for store in stores)} …")
        for store in stores:
            log = self.supervisor.logs.open(store.name)
            env = self.supervisor.environment(dict(os.environ), store.name)
            self.supervisor.add(
                Child(
                    store.name,
                    start=partial(store.start, log, env),
                    prepare=store.prepare,
                    is_ready=store.is_ready,
                    stop_signal=store.stop_signal,
                    group=False,
                    phase=PHASES[store.name],
                    limit=LIMITS[store.name],
                )
            )
        self.supervisor.until_ready(*(store.name for store in stores), limit=START_LIMIT)
        if own_pg is not None:
            own_pg.ensure_databases()
        for folder in (paths.mlflow_artifacts(), paths.beat_schedule().parent, paths.scratch()):
            folder.mkdir(parents=True, exist_ok=True)
        self.env = wiring.environment(
            postgres=own_pg, redis=own_redis, mlflow_port=checks.mlflow_port(), secrets=self.secrets
        )
        wiring.write_environment_file(self.env)

    def _start_line(self, name: str) -> None:
        """Start one line of the Procfile. `exec`: the process itself is ours, not a shell around it."""
        if name not in self.lines:
            return
        command = ["/bin/sh", "-c", f"exec {self.lines[name]}"]
        env = self.supervisor.environment({**os.environ, **self.env}, name)
        log = self.supervisor.logs.open(name)
        health = {
            "web": (paths.port(), "/healthz"),
            "serving": (paths.serving_port(), "/healthz"),
            "mlflow": (int(self.env["SLIPWAY_MLFLOW_PORT"]), "/mlflow/health"),
        }.get(name)
        self.supervisor.add(
            Child(
                name,
                start=partial(processes.spawn, command, log=log, env=env, cwd=paths.REPOSITORY),
                is_ready=None if health is None else partial(answers, *health, host=self._probe_host(name)),
                phase=PHASES.get(name, 0),
                limit=LIMITS.get(name, 6.0),
            )
        )

    def _probe_host(self, name: str) -> str:
        host = paths.host()
        return "127.0.0.1" if name == "mlflow" or host in {"0.0.0.0", "::"} else host  # noqa: S104

    def _prepare(self) -> None:
        self.supervisor.run(
            "prepare",
            [sys.executable, "-m", "slipway.launch.prepare", *self.commands],
            env={**os.environ, **self.env},
            cwd=paths.REPOSITORY,
            limit=START_LIMIT,
        )

    def _demo(self) -> None:
        """Run the demo once in the life of a home, with nothing but addresses and a token: it is a client."""
        script = paths.REPOSITORY / "examples" / "digits" / "demo.py"
        if os.environ.get("SLIPWAY_DEMO") == "0" or paths.demo_done().exists() or not script.exists():
            return
        say("Running the demo: train, register, export, optimize, deploy, predict …")
        given = {name: self.env[name] for name in ("SLIPWAY_URL", "SLIPWAY_SERVING_URL", "SLIPWAY_HOME", "PATH")}
        kept = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
        env = {
            **kept,
            **given,
            "SLIPWAY_TOKEN": paths.admin_token().read_text().strip(),
            "PYTHONUNBUFFERED": "1",
        }
        try:
            self.supervisor.run(
                "demo", [sys.executable, str(script)], env=env, cwd=self.home, limit=DEMO_LIMIT, echo=True
            )
        except LaunchError as error:
            # Everything else runs: the person can look into it with the product at hand.
            words = str(error).partition("\n")[0].removesuffix(" ends:")
            say(f"The demo did not finish and runs again at the next start: {words}.")
            return
        paths.demo_done().touch()

    def _admin_password(self) -> None:
        """The generated password, which `manage.py bootstrap` gives to the account that it makes.

        Without a file the password is the person's own, so that no start prints one that is not true.
        """
        if os.environ.get("SLIPWAY_ADMIN_PASSWORD"):
            paths.admin_password().unlink(missing_ok=True)
        elif not paths.admin_token().exists():  # the first start
            keys.secret(self.secrets, paths.admin_password().name, length=12)

    def _start_warden(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "slipway.launch.warden", self.key],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(paths.REPOSITORY / "platform")},
        )

    def _remove_sockets(self) -> None:
        folder = paths.sockets()
        for place in (folder, folder.with_name(folder.name + "-pg")):
            if place.exists():
                shutil.rmtree(place)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="slipway-up", description=__doc__)
    parser.add_argument("--procfile", type=Path, default=paths.REPOSITORY / "Procfile")
    parser.add_argument("--with-parent", action="store_true", help="stop when the starting process ends")
    options = parser.parse_args(arguments)
    if options.with_parent:
        processes.die_with_parent(signal.SIGTERM, os.getppid())
    return plainly(lambda: Up(options.procfile).run())


def plainly(run: Callable[[], None]) -> int:
    """Run, and turn what a person can act on into one sentence and an exit status."""
    os.umask(0o022)
    try:
        run()
    except LaunchError as error:
        return _fail(str(error))
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return _fail(f"The disk that holds {paths.home()} is full; free some space and start again.")
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            return _fail(f"{error.filename or paths.home()} may not be written: {error.strerror}.")
        raise
    return 0


def _fail(sentence: str) -> int:
    print(f"slipway: {sentence}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
