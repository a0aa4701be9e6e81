"""What `up` says in the terminal, and the checks of what already answers."""

from __future__ import annotations

import http.client
import os
import sys
from pathlib import Path

from slipway import paths


def say(text: str) -> None:
    """A line of progress. A terminal that has gone away is no reason to stop: the logs have it all."""
    try:
        print(text, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123


def answers(port: int, path: str, *, host: str = "127.0.0.1") -> bool:
    """Whether an HTTP server on this machine answers 200."""
    connection = http.client.HTTPConnection(host, port, timeout=1.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def closing(url: str) -> str:
    """Where to look, once everything answers."""
    if os.environ.get("SLIPWAY_ADMIN_PASSWORD"):
        password = "as you set it in SLIPWAY_ADMIN_PASSWORD"  # noqa: S105
    else:
        password = _read(paths.admin_password()) or "as it was when the account was made"
    lines = [
        "",
        "Slipway is running.",
        "",
        f"  dashboard  {url}/",
        "  account    admin",
        f"  password   {password}",
        f"  MLflow     {url}/mlflow/",
        f"  API token  {paths.admin_token()}",
    ]
    if curl := _read(paths.demo_curl()):
        lines += ["", "Ask the demo's model:", "", f"  {curl}"]
    return "\n".join([*lines, "", "Ctrl-C stops it.", ""])


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
