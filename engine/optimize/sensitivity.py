"""How much each layer of a model minds being quantized or pruned, measured one layer at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.optimize.graph.calibration import Calibration, probing
from engine.optimize.graph.model import no_gain, open_model, refuse_control_flow
from engine.optimize.graph.probes import MOST_ROWS, Probes
from engine.optimize.graph.trial import data_input, pruned, quantized
from engine.optimize.graph.weights import weights
from engine.optimize.material import Material

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
    ranges = _ranges(model, Calibration(model, material, MOST_ROWS), {data_input(layer) for layer in layers})
    probes = Probes(model, material, seconds, len(layers) * (2 if prune else 1))
    found = []
    for layer in layers:
        entry: dict[str, Any] = {
            "layer": layer.node.name,
            "operator": layer.node.op_type,
            "size_bytes": len(layer.tensor.raw_data) or 4 * layer.array().size,
        }
        with quantized(model, layer, ranges, bits):
            entry["quantized"], dropped = probes.error(model)
        drop = {"quantized": dropped}
        if prune:
            with pruned(model, layer):
                entry["pruned"], drop["pruned"] = probes.error(model)
        if dropped is not None:
            entry["drop"] = drop
        found.append(entry)
    return found


def _ranges(model: Any, calibration: Calibration, names: set[str]) -> dict[str, tuple[float, float]]:
    """The least and largest value of each tensor, which hold 0."""
    import numpy as np
    from onnx import ModelProto

    asked = sorted(names)
    inside = [name for name in asked if name not in calibration.smallest()]
    run = probing(ModelProto.FromString(model.SerializeToString()), inside)
    low, high = np.zeros(len(asked)), np.zeros(len(asked))
    for feed in calibration.batches():
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
