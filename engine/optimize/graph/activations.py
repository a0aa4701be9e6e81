"""What flows through a graph on calibration rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from engine.errors import EngineError
from engine.evaluate.outputs import feeds
from engine.evaluate.rows import Rows
from engine.formats import signature
from engine.optimize.graph.channels import Channels, Group
from engine.optimize.graph.choose import summed
from engine.optimize.graph.walk import Layer
from engine.scan import onnx_run

_BATCH = 32
_SECONDS = 120.0
_ZERO = 1e-6  # a float this close to zero counts as one


def flow(model: Any, names: list[str], rows: Rows) -> Iterator[dict[str, Any]]:
    """The tensors `names` of a parsed model, batch by batch, float32 with the rows on axis 0.

    EngineError when the rows do not fit the model, or a tensor has no row for each of them."""
    wanted = signature.of_onnx(model)
    arrays = feeds(wanted, rows)
    fixed = wanted["inputs"][0]["shape"][:1]
    size = fixed[0] if fixed and fixed[0] > 0 else _BATCH
    partial = type(model)()
    partial.CopyFrom(model)
    del partial.graph.output[:]
    kinds = {each.name: each for each in [*model.graph.value_info, *model.graph.output, *model.graph.input]}
    for name in names:
        # ONNX Runtime knows the type of a tensor in the middle by itself.
        partial.graph.output.append(kinds.get(name) or helper.make_empty_tensor_value_info(name))
    session = onnx_run.session(partial.SerializeToString())
    for start in range(0, len(rows), size):
        used = min(size, len(rows) - start)
        part = {name: values[start : start + size] for name, values in arrays.items()}
        if fixed and fixed[0] > 0 and used < size:
            part = {name: np.concatenate([v, np.repeat(v[-1:], size - used, axis=0)]) for name, v in part.items()}
        found = onnx_run.run_once(session, part, _SECONDS)
        if any(each.ndim < 2 or len(each) not in (used, size) for each in found):
            raise EngineError(
                "The layers of this model do not keep the rows apart.", field="calibration", code="calibration"
            )
        yield {name: each[:used].astype(np.float32) for name, each in zip(names, found, strict=True)}


def moments(model: Any, places: dict[str, int], rows: Rows) -> dict[str, Any]:
    """Mean and standard deviation (2, channels) of each tensor along its axis of channels, which `places` tells."""
    sums: dict[str, Any] = {}
    for batch in flow(model, list(places), rows):
        for name, values in batch.items():
            flat = np.moveaxis(values, places[name], 0).reshape(values.shape[places[name]], -1).astype(np.float64)
            parts = np.stack([flat.sum(axis=1), np.square(flat).sum(axis=1), np.full(len(flat), flat.shape[1])])
            sums[name] = sums.get(name, 0) + parts
    return {
        name: np.stack([total / count, np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))])
        for name, (total, squares, count) in sums.items()
    }


class Statistics:
    """Of each channel that a layer reads, (channels,): mean of absolutes, variance, share that is not zero."""

    def __init__(self, model: Any, layers: list[Layer], rows: Rows) -> None:
        places = {each.x: each.x_axis for each in layers}
        sums: dict[str, Any] = {}
        for batch in flow(model, list(places), rows):
            for name, values in batch.items():
                flat = np.moveaxis(values, places[name], 0).reshape(values.shape[places[name]], -1).astype(np.float64)
                found = [flat, np.abs(flat), np.square(flat), np.abs(flat) > _ZERO, np.ones_like(flat)]
                sums[name] = sums.get(name, 0) + np.stack([each.sum(axis=1) for each in found])
        self.absolute, self.variance, self.active = {}, {}, {}
        for name, (total, absolute, squares, active, count) in sums.items():
            self.absolute[name], self.active[name] = absolute / count, active / count
            self.variance[name] = np.maximum(squares / count - (total / count) ** 2, 0)


def by_activation(channels: Channels, groups: list[Group], found: Statistics, criterion: str) -> list[Any]:
    """Scores (sets,) of each group, from what its readers read.

    "activation": mean of |a| (Molchanov et al., "Pruning CNNs for Resource Efficient Inference", ICLR 2017).
    "apoz": 1 - APoZ, the share of activations that are not zero (Hu et al., "Network Trimming", 2016); where ReLU is
    missing and all are alike, the mean of |a| decides.
    "contribution": sqrt(sum Var(a) ||w||^2) over the weights w that read the channel: the error that its removal
    leaves in the next layers once its mean is in their bias."""
    scores = []
    for group in groups:
        total, count = np.zeros(len(group.roots)), np.zeros(len(group.roots))
        for layer in group.consumers:
            values = {
                "activation": found.absolute[layer.x],
                "apoz": found.active[layer.x] + 1e-6 * _share(found.absolute[layer.x]),
                "contribution": found.variance[layer.x],
            }[criterion]
            if criterion == "contribution":
                values = values * np.tile(reading(channels, layer), layer.groups)
            total += summed(channels, group, layer.x, layer.x_axis, values)
            count += summed(channels, group, layer.x, layer.x_axis, np.ones(len(values)))
        scores.append(np.sqrt(total) if criterion == "contribution" else total / count)
    return scores


def reading(channels: Channels, layer: Layer) -> Any:
    """Squared norm (channels,) of the weights that read each channel."""
    array = np.moveaxis(numpy_helper.to_array(channels.walk.stored[layer.weight]), layer.in_axis, 0)
    return np.square(array.reshape(len(array), -1).astype(np.float64)).sum(axis=1)


def _share(values: Any) -> Any:
    return values / (float(values.max()) or 1.0)
