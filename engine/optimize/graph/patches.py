"""What a layer reads for one number it gives, as rows of a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.optimize.graph.walk import Layer, Unfit, attribute


class Patches:
    """Samples `per_row` places of each row's output, in the same order of inputs as the layer's weights have.

    kernel: sizes of the weights of a convolution, whose node need not say them."""

    def __init__(self, layer: Layer, kernel: list[int], per_row: int, random: Any) -> None:
        self.per_row, self.random = per_row, random
        self.images = layer.node.op_type == "Conv"
        if self.images:
            self.kernel = kernel
            spatial = len(self.kernel)
            if spatial not in (1, 2) or attribute(layer.node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
                raise Unfit("a convolution over other than one or two axes, or with automatic padding")
            self.strides = attribute(layer.node, "strides", [1] * spatial)
            self.dilations = attribute(layer.node, "dilations", [1] * spatial)
            self.pads = attribute(layer.node, "pads", [0] * 2 * spatial)

    def of(self, x: Any, y: Any) -> tuple[Any, Any]:
        """x: (rows, channels, ...) or (rows, ..., features), y likewise: matrices (n, inputs) and (n, outputs)."""
        if self.images:
            return self._windows(x, y)
        places = int(np.prod(x.shape[1:-1]))
        rows, which = self._chosen(len(x), places)
        x, y = x.reshape(len(x), places, -1), y.reshape(len(y), places, -1)
        return x[rows, which], y[rows, which]

    def _windows(self, x: Any, y: Any) -> tuple[Any, Any]:
        kernel, strides, dilations, pads = self.kernel, self.strides, self.dilations, self.pads
        if len(kernel) == 1:
            x, y = x[:, :, None], y[:, :, None]
            kernel, strides, dilations, pads = [1, *kernel], [1, *strides], [1, *dilations], [0, pads[0], 0, pads[1]]
        height, width = y.shape[2:]
        rows, which = self._chosen(len(x), height * width)
        padded = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
        up = (which // width * strides[0])[:, None] + np.arange(kernel[0]) * dilations[0]
        left = (which % width * strides[1])[:, None] + np.arange(kernel[1]) * dilations[1]
        found = padded[rows[:, None, None], :, up[:, :, None], left[:, None, :]]
        return found.transpose(0, 3, 1, 2).reshape(len(rows), -1), y[rows, :, which // width, which % width]

    def _chosen(self, rows: int, places: int) -> tuple[Any, Any]:
        """Indices of rows and of places in them: all where there are few."""
        if places <= self.per_row:
            return np.repeat(np.arange(rows), places), np.tile(np.arange(places), rows)
        which = self.random.integers(0, places, rows * self.per_row)
        return np.repeat(np.arange(rows), self.per_row), which
