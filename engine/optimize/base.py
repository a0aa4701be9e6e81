"""What an optimizer is: one class in one file of this package, found by `engine.plugins`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from engine import plugins
from engine.errors import EngineError

GROUP = "slipway.optimizers"


class Optimizer(Protocol):
    """name, label: for programs and people. Options: a pydantic model; the form is made from it."""

    name: str
    label: str
    Options: Any

    def optimize(self, model: Path, target: Path, options: Any) -> list[str]:
        """Writes an optimized ONNX file to `target`; returns notes for a person. Runs in the sandbox."""


def optimizers() -> dict[str, Optimizer]:
    """All optimizers by name; imports no framework."""
    return plugins.discover("engine.optimize", GROUP, ["optimize"])


def optimizer(name: str) -> Optimizer:
    """EngineError(field="optimizer") for a name nobody has."""
    known = optimizers()
    if name not in known:
        raise EngineError(f"There is no optimizer '{name[:40]}'.", field="optimizer", code="unknown")
    return known[name]
