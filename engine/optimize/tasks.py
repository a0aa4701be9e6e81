"""The sandboxed tasks of this room: a look at a model, one variant of it, and which layers mind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.optimize.base import optimizer
from engine.optimize.material import Material
from engine.optimize.recipe import Recipe
from engine.plugins import options_of


def make(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Applies params["steps"] ([{"optimizer", "options"}]) to the ONNX file inputs["model"], one after the other.

    inputs may have "calibration" and "training" rows, and "original" where earlier steps were done elsewhere;
    params: task, target, labels, seed.
    {"file": "model.onnx", "steps" (with all options), "versions", "size_bytes", "source_bytes", "notes"}.
    EngineError for what cannot be optimized. The result is still to be checked.
    """
    recipe = Recipe(steps=params["steps"]).checked()
    material = Material.of(params, inputs)
    current, notes = inputs["model"], []
    for number, step in enumerate(recipe.steps):
        plugin = optimizer(step.optimizer)
        target = out / f"step-{number}.onnx"
        print(f"{plugin.label} of {current.stat().st_size} bytes")
        notes += plugin.optimize(current, target, options_of(plugin, step.options), material)
        if number:
            current.unlink()
        current = target
    made = current.rename(out / "model.onnx")
    return {
        "file": made.name,
        "steps": [step.model_dump(mode="json") for step in recipe.steps],
        "versions": _versions(),
        "size_bytes": made.stat().st_size,
        "source_bytes": inputs["model"].stat().st_size,
        "notes": notes,
    }


def survey(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """What there is to optimize in inputs["model"]: see `engine.optimize.survey`."""
    from engine.optimize.survey import survey as look

    return look(inputs["model"])


def sensitivity(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """{"layers": ...} of inputs["model"], an ONNX file, on rows as in `make`; see `engine.optimize.sensitivity`."""
    from engine.optimize.sensitivity import sensitivity as of

    return {"layers": of(inputs["model"], Material.of(params, inputs))}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("onnx", "onnxruntime")}
