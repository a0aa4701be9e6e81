"""What must hold before anything starts; each failure is one plain sentence."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
from pathlib import Path

from slipway import paths
from slipway.launch.errors import LaunchError

LEAST_FREE_MB = 500


def home_folder() -> Path:
    """SLIPWAY_HOME, made if missing, private and writable."""
    home = paths.home()
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (FileExistsError, NotADirectoryError):
        raise LaunchError(f"SLIPWAY_HOME is {home}, but that is not a folder.") from None
    except PermissionError:
        raise LaunchError(f"SLIPWAY_HOME is {home}, but you may not create it; set another one.") from None
    if not os.access(home, os.W_OK | os.X_OK):
        raise LaunchError(f"You may not write to {home}; start as its owner or set SLIPWAY_HOME.")
    return home


def only_one(home: Path) -> int:
    """Take the lock of this home; the returned descriptor holds it until the process ends."""
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LaunchError(f"Slipway already runs in {home}; stop it first or set SLIPWAY_HOME.") from None
    return descriptor


def disk_space(home: Path) -> None:
    free = shutil.disk_usage(home).free // (1024 * 1024)
    if free < LEAST_FREE_MB:
        raise LaunchError(f"The disk that holds {home} is full: {free} MB are free and {LEAST_FREE_MB} MB are needed.")


def free_ports(host: str) -> None:
    """All three public ports, each with the variable that moves it."""
    try:
        wanted = {
            "SLIPWAY_PORT": paths.port(),
            "SLIPWAY_SERVING_PORT": paths.serving_port(),
            "SLIPWAY_GRPC_PORT": paths.grpc_port(),
        }
    except ValueError as error:
        raise LaunchError(str(error)) from None
    names = list(wanted)
    for name, port in wanted.items():
        if twin := next((n for n in names if n != name and wanted[n] == port), None):
            raise LaunchError(f"{name} and {twin} are both {port}; set one of them to another port.")
        _is_free(host, port, name)


def mlflow_port() -> int:
    """SLIPWAY_MLFLOW_PORT if set and free, else any free port of the loopback address."""
    text = os.environ.get("SLIPWAY_MLFLOW_PORT", "").strip()
    if text:
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
            raise LaunchError(f"SLIPWAY_MLFLOW_PORT is {text!r}, but a port is a number from 1 to 65535.")
        _is_free("127.0.0.1", int(text), "SLIPWAY_MLFLOW_PORT")
        return int(text)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(host: str, port: int, name: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LaunchError(_why_not(error, host, port, name)) from None


def _why_not(error: OSError, host: str, port: int, name: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is in use by another program; stop it or set {name} to a free port."
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights than you have; set {name} to a port above 1023."
    return f"SLIPWAY_HOST is {host}, which is no address of this machine ({os.strerror(error.errno or 0)})."
