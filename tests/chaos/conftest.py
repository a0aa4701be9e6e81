"""A real stack without workers: the tests start, kill and freeze their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from honcho.environ import parse_procfile

from tests.e2e.stack import ROOT, Stack
from tests.serving.conftest import control, model_folder, serve  # noqa: F401 - fixtures

LEASE = 3.0


@pytest.fixture(scope="session")
def chaos_stack() -> Iterator[Stack]:
    """PostgreSQL, Redis, MLflow, web and serving under `up`, with a short lease for whoever works on it."""
    lines = parse_procfile((ROOT / "Procfile").read_text()).processes
    stack = Stack(
        lines={name: lines[name] for name in ("web", "mlflow", "serving")},
        SLIPWAY_LEASE_SECONDS=str(LEASE),
        SLIPWAY_LOG_LEVEL="WARNING",
    )
    try:
        yield stack.start()
    finally:
        stack.remove()
