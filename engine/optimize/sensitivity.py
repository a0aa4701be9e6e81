"""How much each layer of a model minds being quantized or pruned, measured one layer at a time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs, run_all
from engine.formats import signature
from engine.optimize.graph.calibration import Calibration, probing
from engine.optimize.graph.model import no_gain, open_model, refuse_control_flow
from engine.optimize.graph.trial import data_input, pruned, quantized
from engine.optimize.graph.weights import Weight, weights
from engine.optimize.material import Material

MOST_ROWS = 128
_LEAST_ROWS = 16
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SECONDS = 12.0


def sensitivity(
    path: Path, material: Material, *, bits: int = 8, prune: bool = True, seconds: float = _SECONDS
) -> list[dict[str, Any]]:
    """Every layer with stored weights, in the model's order: {"layer": the node's name, "operator", "size_bytes",
    "quantized": error, "pruned": error, "drop": {"quantized", "pruned"}}.

    error = ||y - y'|| / ||y|| (Frobenius) over the model's scores y on at most 128 calibration rows, y' the scores with
    that one layer changed; without scores, the share of rows whose label changes.
    quantized: the layer's weights and its input are rounded to `bits` bits and back, weights w' = s * round(w / s) with
    s = max|w| / (2^(bits-1) - 1), the input to 2^bits steps between its least and largest value on those rows.
    pruned: the half of its output channels with the smallest L1 norm gives zeros (Li et al., "Pruning Filters for
    Efficient ConvNets", 2017), their bias too. Without `prune` it is left out.
    drop: how much accuracy falls on those rows; only where the task is a classification and they have a truth.

    Fewer rows are used (16 at least) where so many runs would take longer than about `seconds`.
    EngineError: "calibration" without rows, "control-flow", "no-gain" without layers.
    """
    model = open_model(path, 11)
    refuse_control_flow(model, "Sensitivity")
    layers = [each for each in weights(model, least=1) if each.node.op_type in _LAYERS]
    if not layers:
        raise no_gain("no layers with stored weights")
    probes = _Probes(model, material, layers, seconds, len(layers) * (2 if prune else 1))
    found = []
    for layer in layers:
        entry: dict[str, Any] = {
            "layer": layer.node.name,
            "operator": layer.node.op_type,
            "size_bytes": len(layer.tensor.raw_data) or 4 * layer.array().size,
        }
        with quantized(model, layer, probes.ranges, bits):
            entry["quantized"], dropped = probes.error()
        drop = {"quantized": dropped}
        if prune:
            with pruned(model, layer):
                entry["pruned"], drop["pruned"] = probes.error()
        if dropped is not None:
            entry["drop"] = drop
        found.append(entry)
    return found


class _Probes:
    """Runs of a changing model on the same rows, compared with what it gave at first."""

    def __init__(self, model: Any, material: Material, layers: list[Weight], seconds: float, runs: int) -> None:
        self.model, self.task, self.labels = model, material.task, material.labels
        self.calibration = Calibration(model, material, MOST_ROWS)
        self.ranges = self._ranges({data_input(layer) for layer in layers})
        started = time.perf_counter()
        self.truth = self._outputs()
        took = time.perf_counter() - started
        if took * runs > seconds:
            fewer = max(_LEAST_ROWS, int(self.calibration.count * seconds / (took * runs)))
            self.calibration = Calibration(model, material, max(fewer, self.calibration.batch))
            self.truth = self._outputs()
        self.accuracy = self._accuracy(self.truth)

    def error(self) -> tuple[float, float | None]:
        """(error, drop of accuracy or None) of the model as it is now."""
        now = self._outputs()
        accuracy = self._accuracy(now)
        dropped = None if self.accuracy is None or accuracy is None else self.accuracy - accuracy
        return _difference(self.truth, now), dropped

    def _outputs(self) -> Outputs:
        from engine.scan import onnx_run

        session = onnx_run.session(self.model.SerializeToString())
        return run_all(session, signature.of_onnx(self.model), self.calibration.rows, self.calibration.batch)

    def _accuracy(self, outputs: Outputs) -> float | None:
        from engine.evaluate.quality import metrics

        if "classification" not in self.task or self.calibration.rows.y is None:
            return None
        return metrics(self.task, outputs, self.calibration.rows.y, self.labels)["accuracy"]

    def _ranges(self, names: set[str]) -> dict[str, tuple[float, float]]:
        """The least and largest value of each tensor, which hold 0."""
        import numpy as np
        from onnx import ModelProto

        asked = sorted(names)
        inside = [name for name in asked if name not in self.calibration.smallest()]
        run = probing(ModelProto.FromString(self.model.SerializeToString()), inside)
        low, high = np.zeros(len(asked)), np.zeros(len(asked))
        for feed in self.calibration.batches():
            values = {**feed, **dict(zip(inside, run(feed), strict=True))}
            low = np.minimum(low, [values[name].min() for name in asked])
            high = np.maximum(high, [values[name].max() for name in asked])
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise EngineError(
                "With the calibration rows some values inside the model are not finite.",
                field="calibration",
                code="calibration",
            )
        return {name: (float(low[i]), float(high[i])) for i, name in enumerate(asked)}


def _difference(truth: Outputs, now: Outputs) -> float:
    import numpy as np

    if truth.scores is None or now.scores is None:
        return float(np.mean(truth.labels != now.labels))
    size = float(np.linalg.norm(truth.scores))
    change = float(np.linalg.norm(now.scores - truth.scores))
    return change / size if size else change
