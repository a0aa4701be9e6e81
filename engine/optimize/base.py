"""What an optimizer is: one class in one file of this package, found by `engine.plugins`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal, Protocol

from engine import plugins
from engine.errors import EngineError
from engine.optimize.material import Material

GROUP = "slipway.optimizers"

Family = Literal["quantization", "pruning", "training", "acceleration"]
NOTHING: frozenset[str] = frozenset()
CALIBRATION = frozenset({"calibration"})
TRAINING = frozenset({"training"})


class Optimizer(Protocol):
    """name, label: for programs and people. Options: a pydantic model; the form is made from it.

    needs: of "calibration" and "training", the rows it cannot do without. environment: the prepared environment it
    runs in ("torch"), or None for the worker's own.
    """

    name: str
    label: str
    family: Family
    needs: frozenset[str]
    environment: str | None
    Options: Any

    def optimize(self, model: Path, target: Path, options: Any, material: Material) -> list[str]:
        """Reads the ONNX file `model`, writes another with the same inputs and outputs to `target`; returns notes for a
        person. Runs in the sandbox. EngineError(code="no-gain") when there is nothing in the model for it."""


@functools.cache
def optimizers() -> dict[str, Optimizer]:
    """All optimizers by name; imports no framework."""
    return plugins.discover("engine.optimize", GROUP, ["optimize"])


def optimizer(name: str) -> Optimizer:
    """EngineError(field="optimizer") for a name nobody has."""
    known = optimizers()
    if name not in known:
        raise EngineError(f"There is no optimizer '{name[:40]}'.", field="optimizer", code="unknown")
    return known[name]
