"""Labels of channels: which entries of which tensor axes must leave together."""

from __future__ import annotations

from typing import Any

import numpy as np

Axis = Any  # int64 array of labels, one for each entry of the axis; None where entries may not be removed
Axes = list[Axis]


class Labels:
    """Disjoint sets of labels (union-find). A frozen set stays in the model."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._frozen: list[bool] = []

    def fresh(self, count: int) -> Axis:
        """`count` new labels (count,), each in a set of its own."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        self._frozen.extend([False] * count)
        return np.arange(start, start + count)

    def root(self, label: int) -> int:
        parent = self._parent
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    def roots(self, axis: Axis) -> Axis:
        """The name of each label's set, in the shape of `axis`."""
        return np.array([self.root(int(each)) for each in axis], dtype=np.int64)

    def tie(self, first: Axis, second: Axis) -> None:
        """Entry i of one leaves with entry i of the other; an axis of None freezes the other."""
        if first is None or second is None:
            self.freeze(first)
            self.freeze(second)
            return
        if len(first) != len(second):
            raise ValueError(f"axes of {len(first)} and {len(second)} entries cannot be tied")
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            a, b = self.root(one), self.root(other)
            if a != b:
                self._parent[b] = a
                self._frozen[a] = self._frozen[a] or self._frozen[b]

    def freeze(self, axis: Axis) -> None:
        if axis is not None:
            for each in axis.tolist():
                self._frozen[self.root(each)] = True

    def frozen(self, root: int) -> bool:
        return self._frozen[self.root(root)]
