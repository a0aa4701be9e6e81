"""Every path below SLIPWAY_HOME, and the ports. Standard library only: `make up` reads it before Django.

The functions read the environment on every call, so that a test can point SLIPWAY_HOME elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# A Unix socket's path is limited to 107 bytes; PostgreSQL appends ".s.PGSQL.5432.lock" to its folder.
LONGEST_SOCKET_FOLDER = 80


def home() -> Path:
    """Where all state lives: SLIPWAY_HOME or `.slipway` in the repository."""
    value = os.environ.get("SLIPWAY_HOME", "").strip()
    return Path(value).expanduser().absolute() if value else REPOSITORY / ".slipway"


def pg() -> Path:
    """Data folder of the embedded PostgreSQL."""
    return home() / "pg"


def redis() -> Path:
    """Working folder of the embedded Redis."""
    return home() / "redis"


def mlflow_artifacts() -> Path:
    """Artifact bytes when SLIPWAY_ARTIFACTS_DESTINATION names no other store."""
    return home() / "mlflow" / "artifacts"


def cache() -> Path:
    """Digest-named copies of artifacts."""
    return home() / "cache"


def environments() -> Path:
    """Prepared Python environments, one folder for each lock digest."""
    return home() / "environments"


def scratch() -> Path:
    """The only place sandboxed children write to."""
    return home() / "scratch"


def serving() -> Path:
    """The inference server's copy of its desired state and models."""
    return home() / "serving"


def logs() -> Path:
    """One log file for each process."""
    return home() / "logs"


def secrets() -> Path:
    """Generated keys and passwords (folder 700, files 600)."""
    return home() / "secrets"


def signing_key() -> Path:
    """The private key that signs artifacts (PEM, mode 600): SLIPWAY_SIGNING_KEY_FILE or one of our own."""
    given = os.environ.get("SLIPWAY_SIGNING_KEY_FILE", "").strip()
    return Path(given).expanduser().absolute() if given else secrets() / "signing-key.pem"


def trusted_keys() -> Path:
    """The public keys of every key that this home has signed with, for the inference servers (PEM)."""
    return home() / "trusted-keys.pem"


def admin_token() -> Path:
    """The admin's API token, written by the first start (mode 600)."""
    return home() / "admin-token"


def admin_password() -> Path:
    """The generated password of the account `admin` (mode 600)."""
    return secrets() / "admin-password"


def environment_file() -> Path:
    """The environment of the running processes, for `honcho -e FILE start` and for shells."""
    return home() / "env"


def lock_file() -> Path:
    """Held by the one `make up` that may use this home."""
    return home() / "lock"


def beat_schedule() -> Path:
    """Celery beat's own bookkeeping."""
    return home() / "beat" / "schedule"


def demo_done() -> Path:
    """Exists once the demo has run to its end."""
    return home() / "demo-done"


def demo_curl() -> Path:
    """The curl line that the demo leaves for the last words of `make up`."""
    return home() / "demo-curl.txt"


def sockets(folder: Path | None = None) -> Path:
    """A short folder name for the Unix sockets of the home `folder` (not created here)."""
    owner = str(folder or home())
    name = f"slipway-{os.geteuid()}-{hashlib.sha256(owner.encode()).hexdigest()[:12]}"
    for base in _socket_bases():
        candidate = Path(base) / name
        if len(os.fsencode(candidate)) <= LONGEST_SOCKET_FOLDER:
            return candidate
    return Path("/tmp") / name  # noqa: S108  (the folder's owner and mode are checked when it is made)


def _socket_bases() -> list[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    bases = [tempfile.gettempdir()]
    # Root's runtime folder is closed to the user that PostgreSQL runs as.
    if runtime and os.geteuid() != 0 and os.path.isdir(runtime) and os.access(runtime, os.W_OK):  # noqa: PTH112
        bases.insert(0, runtime)
    return bases


def host() -> str:
    """The address that web and serving listen on."""
    return os.environ.get("SLIPWAY_HOST", "").strip() or "127.0.0.1"


def port() -> int:
    """Dashboard, /api/v1 and /mlflow/."""
    return _port("SLIPWAY_PORT", 8000)


def serving_port() -> int:
    """Open Inference Protocol V2 over REST."""
    return _port("SLIPWAY_SERVING_PORT", 8080)


def grpc_port() -> int:
    """Open Inference Protocol V2 over gRPC."""
    return _port("SLIPWAY_GRPC_PORT", 8081)


def _port(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"{name} is {text!r}, but a port is a whole number from 1 to 65535.")
    return int(text)
