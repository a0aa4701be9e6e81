"""Repairs the layers that lost inputs, from calibration rows and without training."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from onnx import numpy_helper

from engine.evaluate.rows import Rows
from engine.optimize.graph import biases
from engine.optimize.graph.activations import flow, moments
from engine.optimize.graph.channels import Channels
from engine.optimize.graph.patches import Patches
from engine.optimize.graph.walk import Layer, Unfit

_RIDGES = (1e-3, 1e-1)  # of the mean eigenvalue; which one is told by rows kept aside
_ASIDE = 0.2
_MOST_STRETCH = 10.0  # of a channel's deviation: more would be noise
_MOST_NUMBERS = 48_000_000  # in the matrix of sampled inputs: 192 MB
_LARGE = 1024
_MOST_UNKNOWNS = 6_000  # inputs of a layer when there are more samples than that


class Repair:
    """model: the pruned one, which is changed in place."""

    def __init__(self, channels: Channels, model: Any, removed: Iterable[int], rows: Rows, seed: int) -> None:
        self.channels, self.model, self.removed, self.rows = channels, model, set(removed), rows
        self.random = np.random.default_rng(seed)
        shared = [each.weight for each in channels.walk.layers]
        self.damaged = [each for each in channels.walk.layers if not self._whole(each)]
        self.alone = {weight for weight in shared if shared.count(weight) == 1}

    def _whole(self, layer: Layer) -> bool:
        keep = self.channels.kept(layer.x, layer.x_axis, self.removed)
        return keep is None or bool(keep.all())

    def compensate(self) -> int:
        """Layer by layer, from the inputs: gives each output channel the mean and the deviation over rows and places
        back that it had in the whole model. Returns how many layers.

        The mean goes into the bias (empirical bias correction, Nagel et al., "Data-Free Quantization Through Weight
        Equalization and Bias Correction", ICCV 2019). Alone it harms: without the deviation, which shrinks with every
        layer, constants decide the result (Jordan et al., "REPAIR", ICLR 2023)."""
        for layer in self.damaged:
            self._compensate(layer)
        biases.drop_unused(self.model.graph)
        return len(self.damaged)

    @cached_property
    def _moments(self) -> dict[str, Any]:
        return moments(self.channels.model, {each.y: each.y_axis for each in self.damaged}, self.rows)

    def _compensate(self, layer: Layer) -> None:
        mean, deviation = self._moments[layer.y]
        keep = self.channels.kept(layer.y, layer.y_axis, self.removed)
        if keep is not None:
            mean, deviation = mean[keep], deviation[keep]
        now, spread = moments(self.model, {layer.y: layer.y_axis}, self.rows)[layer.y]
        try:
            own = biases.bias_of(self.model.graph, layer, len(now))
        except Unfit:
            own = None
        if own is not None and layer.weight in self.alone:
            factor = np.clip(deviation / np.maximum(spread, 1e-12), 1 / _MOST_STRETCH, _MOST_STRETCH)
            biases.scale(self.model.graph, layer, factor)
            now = factor * (now - own) + own
        biases.add(self.model.graph, layer, mean - now)

    def refit(self) -> tuple[int, int]:
        """Layer by layer, from the inputs: new weights W and bias b that minimise ||Y - X W - b||^2 + r ||W - W0||^2,
        where X is what reaches the layer in the pruned model, Y what it gave in the whole one and W0 what is left of
        its weights (after Luo et al., "ThiNet", and He et al., "Channel Pruning for Accelerating Very Deep Neural
        Networks", both ICCV 2017). Returns how many layers were fitted, and how many only compensated."""
        fitted = 0
        for layer in self.damaged:
            try:
                if layer.weight not in self.alone or layer.groups > 1 or layer.node.op_type == "ConvTranspose":
                    raise Unfit("weights that another layer has too, or that several outputs share")
                self._fit(layer)
                fitted += 1
            except Unfit as reason:
                print(f"{layer.name[:60]} is not fitted: {reason}")
                self._compensate(layer)
        biases.drop_unused(self.model.graph)
        return fitted, len(self.damaged) - fitted

    def _fit(self, layer: Layer) -> None:
        graph = self.model.graph
        weight = numpy_helper.to_array(next(each for each in graph.initializer if each.name == layer.weight))
        matrix = np.moveaxis(weight, layer.out_axis, -1)
        start = matrix.reshape(-1, matrix.shape[-1]).astype(np.float32)
        old = biases.bias_of(graph, layer, start.shape[1])
        x, y = self._samples(layer, start.shape[0])
        solved, bias = _solve(x, y, start)
        biases.replace(graph, layer.weight, np.moveaxis(solved.reshape(matrix.shape), -1, layer.out_axis))
        biases.add(graph, layer, bias - old)

    def _samples(self, layer: Layer, unknowns: int) -> tuple[Any, Any]:
        """Inputs (n, unknowns) in the pruned model and outputs (n, channels) in the whole one, in the same places."""
        wanted = min(max(2 * unknowns, 4096), 8192, max(_MOST_NUMBERS // unknowns, 64))
        if min(wanted, unknowns) > _MOST_UNKNOWNS:
            raise Unfit("too many inputs")
        kernel = list(self.channels.walk.stored[layer.weight].dims[2:])
        patches = Patches(layer, kernel, -(-wanted // len(self.rows)), self.random)
        keep = self.channels.kept(layer.y, layer.y_axis, self.removed)
        xs, ys = [], []
        whole = flow(self.channels.model, [layer.y], self.rows)
        for before, after in zip(flow(self.model, [layer.x], self.rows), whole, strict=True):
            x, y = patches.of(before[layer.x], after[layer.y])
            xs.append(x)
            ys.append(y if keep is None else y[:, keep])
        return np.concatenate(xs), np.concatenate(ys)


def _solve(x: Any, y: Any, start: Any) -> tuple[Any, Any]:
    """Ridge regression around `start`: weights (inputs, outputs) and bias (outputs,). The ridge is the one with the
    least error on rows kept aside; where none helps, `start` stays and only the bias is new."""
    from scipy.linalg import LinAlgError, solve

    train = max(1, round(len(x) * (1 - _ASIDE)))
    x_mean, y_mean = x[:train].mean(axis=0), y[:train].mean(axis=0)
    centred, rest = x - x_mean, y - y_mean - (x - x_mean) @ start
    inside, outside, aim = centred[:train], centred[train:], rest[:train]
    wide = inside.shape[1] > train  # then the dual form has fewer unknowns
    gram = inside @ inside.T if wide else inside.T @ inside
    # Single precision solves large systems in half the time, and the ridge keeps them well conditioned.
    gram = gram.astype(np.float64 if len(gram) <= _LARGE else np.float32)
    right = aim if wide else inside.T @ aim
    scale = float(np.trace(gram)) / len(gram)
    best, error = np.zeros_like(start), float(np.square(rest[train:]).sum())
    for ridge in _RIDGES if scale > 0 else ():
        try:
            found = solve(gram + np.float32(ridge * scale) * np.eye(len(gram), dtype=gram.dtype), right, assume_a="pos")
        except LinAlgError:
            # So little ridge leaves the matrix singular in floats: a larger one does not.
            continue
        change = (inside.T @ found if wide else found).astype(np.float32)
        left = float(np.square(rest[train:] - outside @ change).sum())
        if left < error:
            best, error = change, left
    solved = start + best
    return solved, (y_mean - x_mean @ solved).astype(np.float64)
