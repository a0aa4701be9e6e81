"""What must not be loaded where: frameworks in the engine, model libraries in web and workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTROL_PLANE = {"django", "rest_framework", "celery", "psycopg2", "slipway", "registry", "deployments"}
MODEL_LIBRARIES = {"torch", "tensorflow", "sklearn", "skl2onnx", "onnx", "onnxruntime", "mlflow", "fickling", "skops"}


def loaded(code: str) -> set[str]:
    """Top-level names in sys.modules after running `code` in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


WALK = """
import importlib, pkgutil
package = importlib.import_module({name!r})
for entry in pkgutil.walk_packages(package.__path__, {name!r} + "."):
    if not entry.name.endswith("__main__"):
        importlib.import_module(entry.name)
"""


@pytest.mark.parametrize("room", ["engine", "serving"])
def test_room_loads_nothing_of_the_control_plane_when_all_of_it_is_imported(room: str) -> None:
    assert not loaded(WALK.format(name=room)) & CONTROL_PLANE


def test_engine_loads_no_model_library_when_its_plugins_are_listed() -> None:
    code = """
from engine.export.base import exporters
from engine.optimize.base import optimizers
assert exporters() and optimizers()
"""
    assert not loaded(code) & MODEL_LIBRARIES


@pytest.mark.parametrize(
    "start",
    [
        "import slipway.asgi",
        "import slipway.celery, django; django.setup(); slipway.celery.app.loader.import_default_modules()",
    ],
    ids=["web", "worker"],
)
def test_process_loads_no_model_library_when_it_starts(start: str) -> None:
    assert not loaded(start) & MODEL_LIBRARIES
