"""Every environment variable that Slipway reads, in one typed place."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from slipway import paths


def _flag(name: str, default: bool = False) -> bool:
    value = os.environ.get(name, "").strip().lower()
    return default if value == "" else value in {"1", "true", "yes", "on"}


def _list(name: str, default: str) -> list[str]:
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def _secret(name: str, file_name: str) -> str:
    """A secret from its variable or, failing that, from the file that `make up` wrote."""
    value = os.environ.get(name, "")
    if not value:
        file = paths.secrets() / file_name
        value = file.read_text().strip() if file.exists() else ""
    return value


@dataclass(frozen=True)
class Environment:
    """The variables, read once at start; `environment` below is the instance to use."""

    secret_key: str = field(default_factory=lambda: _secret("SLIPWAY_SECRET_KEY", "secret-key"))
    serving_token: str = field(default_factory=lambda: _secret("SLIPWAY_SERVING_TOKEN", "serving-token"))
    database_url: str = field(default_factory=lambda: os.environ.get("DATABASE_URL", ""))
    redis_url: str = field(default_factory=lambda: os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
    debug: bool = field(default_factory=lambda: _flag("SLIPWAY_DEBUG"))
    allowed_hosts: list[str] = field(
        default_factory=lambda: _list("SLIPWAY_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
    )
    https: bool = field(default_factory=lambda: _flag("SLIPWAY_HTTPS"))
    port: int = field(default_factory=lambda: int(os.environ.get("SLIPWAY_PORT", "8000")))
    public_url: str = field(default_factory=lambda: os.environ.get("SLIPWAY_PUBLIC_URL", ""))
    mlflow_url: str = field(default_factory=lambda: os.environ.get("SLIPWAY_MLFLOW_URL", ""))
    mlflow_port: int = field(default_factory=lambda: int(os.environ.get("SLIPWAY_MLFLOW_PORT", "5000")))
    serving_url: str = field(default_factory=lambda: os.environ.get("SLIPWAY_SERVING_URL", ""))
    serving_port: int = field(default_factory=lambda: int(os.environ.get("SLIPWAY_SERVING_PORT", "8080")))
    max_upload_mb: int = field(default_factory=lambda: int(os.environ.get("SLIPWAY_MAX_UPLOAD_MB", "2048")))
    environments_gb: int = field(default_factory=lambda: int(os.environ.get("SLIPWAY_ENVIRONMENTS_GB", "20")))
    environments_days: int = field(default_factory=lambda: int(os.environ.get("SLIPWAY_ENVIRONMENTS_DAYS", "30")))
    search_trials: int = field(default_factory=lambda: int(os.environ.get("SLIPWAY_SEARCH_TRIALS", "2")))
    installer: str = field(default_factory=lambda: os.environ.get("SLIPWAY_INSTALLER", "").strip() or "pip")
    build_packages: bool = field(default_factory=lambda: _flag("SLIPWAY_BUILD_PACKAGES"))
    admin_password: str = field(default_factory=lambda: os.environ.get("SLIPWAY_ADMIN_PASSWORD", ""))
    sandbox: str = field(default_factory=lambda: os.environ.get("SLIPWAY_SANDBOX", "on"))
    failpoint: str = field(default_factory=lambda: os.environ.get("SLIPWAY_FAILPOINT", ""))
    lease_seconds: float = field(default_factory=lambda: float(os.environ.get("SLIPWAY_LEASE_SECONDS", "20")))
    log_level: str = field(default_factory=lambda: os.environ.get("SLIPWAY_LOG_LEVEL", "INFO"))

    @property
    def mlflow_base(self) -> str:
        """Where this process reaches MLflow, with its prefix and no trailing slash."""
        return (self.mlflow_url or f"http://127.0.0.1:{self.mlflow_port}/mlflow").rstrip("/")

    @property
    def serving_base(self) -> str:
        """Where people and the playground reach the inference server."""
        return (self.serving_url or f"http://127.0.0.1:{self.serving_port}").rstrip("/")

    @property
    def public_base(self) -> str:
        """The dashboard's address as links and snippets show it."""
        return (self.public_url or f"http://127.0.0.1:{self.port}").rstrip("/")


environment = Environment()
