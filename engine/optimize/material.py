"""What an optimizer may learn from besides the model itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.evaluate.rows import Rows

CALIBRATION_ROWS = 512


@dataclass(frozen=True, slots=True)
class Material:
    """calibration: rows that show what inputs look like; training: rows with a truth to learn from; neither holds
    rows that quality is judged on. labels: class names in the order of the scores, where they are known.
    original: the ONNX file that the recipe began with, which a smaller one may learn from."""

    task: str = ""
    labels: list[Any] | None = None
    calibration: Rows | None = None
    training: Rows | None = None
    original: Path | None = None
    seed: int = 0

    @classmethod
    def of(cls, params: dict[str, Any], inputs: dict[str, Path]) -> Material:
        """From a sandboxed task's parameters (task, labels, seed, target) and files ("model", "calibration",
        "training", "original").
        Without calibration rows of its own, a stratified part of the training rows calibrates."""
        from engine.evaluate import rows
        from engine.optimize.sampling import stratified

        target, seed = str(params.get("target") or "target"), int(params.get("seed") or 0)
        found = {name: rows.load(inputs[name], target) for name in ("calibration", "training") if name in inputs}
        calibration = found.get("calibration", found.get("training"))
        return cls(
            task=str(params.get("task") or ""),
            labels=params.get("labels"),
            calibration=stratified(calibration, CALIBRATION_ROWS, seed) if calibration is not None else None,
            training=found.get("training"),
            original=inputs.get("original", inputs["model"]),
            seed=seed,
        )

    def to_calibrate(self) -> Rows:
        """EngineError(code="calibration") without rows."""
        if self.calibration is None:
            raise EngineError("This method needs rows to calibrate with.", field="calibration", code="calibration")
        return self.calibration

    def to_train(self) -> Rows:
        """EngineError(code="training") without rows, or without their truth."""
        if self.training is None or self.training.y is None:
            raise EngineError(
                "This method needs training rows with a target column.", field="training", code="training"
            )
        return self.training
