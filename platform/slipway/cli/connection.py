"""Which Slipway to talk to and with which token.

The address: `--url`, SLIPWAY_URL, the one of the last `slipway login`, else this machine.
The token: `--token`, SLIPWAY_TOKEN, the file that `make up` wrote (SLIPWAY_HOME/admin-token, or
.slipway/admin-token in this folder or one above it), else the one that `slipway login` stored for the address.
The file of `make up` belongs to the Slipway of this machine and is never sent anywhere else.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from slipway.cli.errors import CliError, ExitCode

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_SERVING_PORT = 8080


@dataclass(frozen=True)
class Connection:
    """Addresses without a trailing slash; `source` says where the token came from."""

    url: str
    token: str
    serving: str
    source: str


def config_file() -> Path:
    """Where `slipway login` keeps addresses and tokens (mode 600)."""
    base = os.environ.get("XDG_CONFIG_HOME", "").strip() or "~/.config"
    return Path(base).expanduser() / "slipway" / "config.json"


def config_read() -> dict[str, Any]:
    """The stored logins: {"current": url, "servers": {url: {"token", "serving"}}}."""
    path = config_file()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        servers = found["servers"]
        if not isinstance(found["current"], str) or not all(isinstance(row, dict) for row in servers.values()):
            raise ValueError
    except FileNotFoundError:
        return {"current": "", "servers": {}}
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}.", ExitCode.USAGE) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CliError(f"{path} is damaged. Remove it and run `slipway login` again.", ExitCode.USAGE) from None
    return {"current": found["current"], "servers": servers}


def config_write(config: dict[str, Any]) -> Path:
    """Replaces the file in one step; nobody but its owner ever may read it."""
    path = config_file()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(config, stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CliError(f"{path} cannot be written: {error.strerror}.", ExitCode.USAGE) from None
    return path


def address(text: str, what: str = "--url") -> str:
    """A checked address: scheme and host, no credentials, no trailing slash."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise CliError(f"{what}: {text!r} is no address.", ExitCode.USAGE) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or any(char.isspace() for char in text.strip()):
        raise CliError(f"{what}: {text!r} is no address. Write it like {DEFAULT_URL}.", ExitCode.USAGE)
    if parts.username is not None or parts.query or parts.fragment:
        raise CliError(f"{what}: only scheme, host, port and path, as in {DEFAULT_URL}.", ExitCode.USAGE)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_files() -> list[Path]:
    """Where `make up` may have left the admin's token, nearest first."""
    home = os.environ.get("SLIPWAY_HOME", "").strip()
    if home:
        return [Path(home).expanduser() / "admin-token"]
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return []
    return [folder / ".slipway" / "admin-token" for folder in (here, *here.parents)]


def _token_of_file() -> tuple[str, str]:
    for path in token_files():
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            return text, str(path)
    return "", ""


def token_check(text: str) -> str:
    """The token, if it can be sent at all."""
    text = text.strip()
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise CliError("A token has only letters, digits and punctuation.", ExitCode.USAGE)
    return text


def connect(url: str | None, token: str | None, serving: str | None) -> Connection:
    """Puts options, environment, files and stored logins together."""
    stored: dict[str, Any] | None = None
    if not url:
        stored = config_read()
        url = stored["current"] or DEFAULT_URL
    url = address(url)
    found, source = token_check(token or ""), "--token or SLIPWAY_TOKEN"
    if not found and is_loopback(url):
        found, source = _token_of_file()
    if not found or not serving:
        login = (stored or config_read())["servers"].get(url, {})
        if not found:
            found, source = str(login.get("token", "")), f"login in {config_file()}"
        serving = serving or str(login.get("serving", ""))
    return Connection(
        url=url,
        token=token_check(found),
        serving=address(serving, "--serving") if serving else _serving_beside(url),
        source=source if found else "",
    )


def _serving_beside(url: str) -> str:
    """The inference server where `make up` starts it: the same host, its own port."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = os.environ.get("SLIPWAY_SERVING_PORT", "").strip() or str(DEFAULT_SERVING_PORT)
    return address(f"{parts.scheme}://{host}:{port}", "SLIPWAY_SERVING_PORT")
