"""The walk over a graph that labels the axes of every tensor, and what it remembers for the removal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from engine.optimize.graph.labels import Axes, Axis, Labels

Size = int | str | None  # a number, the name of an open dimension, or unknown


class Unfit(Exception):
    """This operator, as it is used here, is not understood: what it reads is frozen."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear operator with stored weights. in_axis, out_axis: of the weight. x_axis, y_axis: the channels of what it
    reads and gives. groups: 1 unless it is a grouped convolution."""

    node: Any
    x: str
    y: str
    weight: str
    in_axis: int
    out_axis: int
    x_axis: int
    y_axis: int
    groups: int = 1

    @property
    def name(self) -> str:
        return str(self.node.name or self.weight)


@dataclass(slots=True)
class Walk:
    """axes: {tensor: labels of each axis}. reshapes, splits, depthwise: nodes with numbers to adjust."""

    graph: Any
    opset: int
    shapes: dict[str, list[Size]]
    labels: Labels = field(default_factory=Labels)
    axes: dict[str, Axes | None] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    reshapes: list[tuple[Any, list[Size]]] = field(default_factory=list)
    splits: list[Any] = field(default_factory=list)
    depthwise: list[Any] = field(default_factory=list)
    stored: dict[str, Any] = field(default_factory=dict)
    readers: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stored = {each.name: each for each in self.graph.initializer}
        for each in self.graph.initializer:
            self.shapes[each.name] = list(each.dims)
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def of(self, name: str) -> Axes:
        """Labels of each axis of a tensor. Unfit where its rank is not known."""
        if name not in self.axes and name in self.stored:
            dims = self.stored[name].dims
            self.axes[name] = [self.labels.fresh(size) if size > 1 else None for size in dims]
        axes = self.axes.get(name)
        if axes is None:
            raise Unfit(f"the rank of '{name}' is unknown")
        return axes

    def weight(self, name: str) -> Axes:
        """The same for stored weights. Unfit for weights that are computed."""
        if name not in self.stored:
            raise Unfit(f"'{name}' is not stored")
        return self.of(name)

    def shape(self, name: str) -> list[Size]:
        if name not in self.shapes:
            raise Unfit(f"the shape of '{name}' is unknown")
        return self.shapes[name]

    def constant(self, name: str) -> Any:
        """The numbers of a stored tensor as a flat list. Unfit for a computed one."""
        if name not in self.stored:
            raise Unfit(f"'{name}' is not stored")
        return numpy_helper.to_array(self.stored[name]).reshape(-1).tolist()

    def give(self, name: str, axes: Axes) -> None:
        """Sets the labels of what a node gives; where sizes disagree, or are 1, they are frozen."""
        known = self.shapes.get(name)
        if known is not None and len(known) != len(axes):
            raise Unfit(f"'{name}' has another rank than expected")
        given: Axes = []
        for number, axis in enumerate(axes):
            size = known[number] if known is not None else None
            fits = axis is not None and len(axis) > 1 and (not isinstance(size, int) or size == len(axis))
            if not fits:
                self.labels.freeze(axis)
            given.append(axis if fits else None)
        self.axes[name] = given

    def give_unknown(self, name: str) -> None:
        self.axes[name] = [None] * len(self.shapes[name]) if name in self.shapes else None

    def freeze(self, name: str) -> None:
        if name not in self.axes and name not in self.stored:
            return
        if name not in self.axes:
            self.of(name)
        for axis in self.axes[name] or []:
            self.labels.freeze(axis)

    def freeze_node(self, node: Any) -> None:
        """All that it reads, in the bodies of a control flow operator too."""
        for name in names_read(node):
            self.freeze(name)
        for name in node.output:
            self.give_unknown(name)

    def broadcast(self, names: list[str]) -> Axes:
        """The axes of an elementwise result: axes of one place are tied, those of size 1 follow."""
        operands = [list(zip(self.of(name), self.shape(name), strict=True)) for name in names]
        rank = max(len(each) for each in operands)
        result: Axes = []
        for place in range(-rank, 0):
            wide = [each[place] for each in operands if len(each) >= -place and each[place][1] != 1]
            for axis, _ in wide[1:]:
                self.labels.tie(wide[0][0], axis)
            result.append(wide[0][0] if wide and all(axis is not None for axis, _ in wide) else None)
        return result


def names_read(node: Any) -> list[str]:
    """Names of tensors a node reads, also from within the graphs it holds."""
    names, todo = [], [node]
    while todo:
        current = todo.pop()
        names += [name for name in current.input if name]
        for attribute in current.attribute:
            for body in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                todo += body.node
                names += [each.name for each in body.output]
    return names


def attribute(node: Any, name: str, default: Any = None) -> Any:
    for each in node.attribute:
        if each.name == name:
            return helper.get_attribute_value(each)
    return default


def uses(graph: Any) -> Counter[str]:
    """How often each tensor is read, as an output of the graph too."""
    counts = Counter(name for node in graph.node for name in names_read(node))
    counts.update(each.name for each in graph.output)
    return counts


def spread(axis: Axis, dims: list[int], place: int) -> Axis:
    """Labels of axis `place` of a tensor of `dims`, for each entry of it laid flat."""
    index = np.arange(int(np.prod(dims))) // int(np.prod(dims[place + 1 :])) % dims[place]
    return axis[index]
