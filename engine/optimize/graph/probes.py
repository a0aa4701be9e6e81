"""Runs of a changing model on the same rows, compared with what it gave at first."""

from __future__ import annotations

import time
from typing import Any

from engine.evaluate.outputs import Outputs, run_all
from engine.formats import signature
from engine.optimize.graph.calibration import Calibration
from engine.optimize.material import Material

MOST_ROWS = 128
_LEAST_ROWS = 16


class Probes:
    """On at most 128 calibration rows of `material`; on fewer (16 at least) where `runs` comparisons would take longer
    than about `seconds`. EngineError as `Calibration` says."""

    def __init__(self, model: Any, material: Material, seconds: float, runs: int) -> None:
        self.task, self.labels = material.task, material.labels
        self.calibration = Calibration(model, material, MOST_ROWS)
        started = time.perf_counter()
        self.truth = self._outputs(model)
        took = time.perf_counter() - started
        if took * runs > seconds:
            fewer = max(_LEAST_ROWS, int(self.calibration.count * seconds / (took * runs)))
            self.calibration = Calibration(model, material, max(fewer, self.calibration.batch))
            self.truth = self._outputs(model)
        self.accuracy = self._accuracy(self.truth)

    def error(self, model: Any) -> tuple[float, float | None]:
        """(||y - y'|| / ||y|| over the scores, drop of accuracy or None) of a model with the same inputs and outputs;
        without scores, the share of rows whose label changes."""
        now = self._outputs(model)
        accuracy = self._accuracy(now)
        dropped = None if self.accuracy is None or accuracy is None else self.accuracy - accuracy
        return _difference(self.truth, now), dropped

    def _outputs(self, model: Any) -> Outputs:
        from engine.scan import onnx_run

        session = onnx_run.session(model.SerializeToString())
        return run_all(session, signature.of_onnx(model), self.calibration.rows, self.calibration.batch)

    def _accuracy(self, outputs: Outputs) -> float | None:
        from engine.evaluate.quality import metrics

        if "classification" not in self.task or self.calibration.rows.y is None:
            return None
        return metrics(self.task, outputs, self.calibration.rows.y, self.labels)["accuracy"]


def _difference(truth: Outputs, now: Outputs) -> float:
    import numpy as np

    if truth.scores is None or now.scores is None:
        return float(np.mean(truth.labels != now.labels))
    size = float(np.linalg.norm(truth.scores))
    change = float(np.linalg.norm(now.scores - truth.scores))
    return change / size if size else change
