"""The CLI against a real server: Django's live server, real tokens, and a real inference server."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deployments.models import DesiredState
from slipway.accounts.models import User
from slipway.accounts.services import token_create
from slipway.cli import app, follow, rollout
from tests.serving import models
from tests.serving.conftest import Server


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*args: object, url: str = "", token: str = "", stdin: str = "", env: dict[str, str] | None = None) -> Ran:
    values = {"SLIPWAY_URL": url, "SLIPWAY_TOKEN": token, "NO_COLOR": "1", "COLUMNS": "200", **(env or {})}
    result = CliRunner().invoke(app, [str(arg) for arg in args], env=values, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


Cli = Callable[..., Ran]


@pytest.fixture(autouse=True)
def own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No login of the person who runs the tests is read or written."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("SLIPWAY_URL", "SLIPWAY_TOKEN", "SLIPWAY_SERVING_URL", "SLIPWAY_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "config"


@pytest.fixture
def token_of(people: dict[str, User]) -> Callable[..., str]:
    def make(name: str, scope: str = "write") -> str:
        return token_create(user=people[name], name="cli", scope=scope)[1]

    return make


@pytest.fixture
def cli(live_server: Any, token_of: Callable[..., str]) -> Cli:
    """Runs a command as one of the people (root without a name) and expects an exit code (0)."""
    DesiredState.objects.get_or_create(id=1)  # emptied with everything else between these tests
    tokens: dict[tuple[str, str], str] = {}

    def command(*args: object, by: str = "root", scope: str = "write", code: int = 0, **more: Any) -> Ran:
        token = tokens.get((by, scope)) or tokens.setdefault((by, scope), token_of(by, scope))
        ran = run(*args, url=live_server.url, token=token, **more)
        assert ran.code == code, (args, ran)
        return ran

    return command


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Replaces the pauses of what follows jobs and rollouts: the world moves on instead."""

    def tick(move: Callable[[int], None]) -> None:
        pauses = iter(range(100))

        class Clock:
            @staticmethod
            def sleep(seconds: float) -> None:
                move(next(pauses))

            @staticmethod
            def monotonic() -> float:
                return 0.0

        monkeypatch.setattr(follow, "time", Clock)
        monkeypatch.setattr(rollout, "time", Clock)

    return tick


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real inference server with a classifier, a sum of two inputs, and a text echo."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "tiny.onnx").write_bytes(models.classifier())
    (folder / "two.onnx").write_bytes(models.two_inputs())
    kind, _ = models.IDENTITIES["BYTES"]
    (folder / "text.onnx").write_bytes(models.identity(kind, ["N", "M"]))
    server = Server("--models", str(folder))
    yield server.wait_ready().url
    server.stop()


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    path = tmp_path / "digits model.onnx"
    path.write_bytes(models.classifier())
    return path


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """MLflow's two calls of an upload, answered by a folder: its own tests talk to the real one."""
    from registry import storage
    from registry.mlflow import gateway

    def put_file(path: Path, *, run_id: str, artifact_path: str) -> str:
        return f"mlflow-artifacts:/0/{run_id}/artifacts/{artifact_path}"

    monkeypatch.setattr(gateway, "run_ensure", lambda *args, **more: hashlib.sha256(os.urandom(8)).hexdigest()[:32])
    monkeypatch.setattr(storage, "put_file", put_file)
    return tmp_path
