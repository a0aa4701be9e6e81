"""Channels of an ONNX graph that can really be removed, and their removal.

Every entry of every tensor axis gets a label, and the walk over the nodes ties labels that must leave together, as the
dependency graph of DepGraph does (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023); here the sets
come from union-find over single entries, so that Concat, Flatten and groups need no mappings of indices. What an
operator that is not known here reads is frozen, and so are inputs and outputs of the graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from onnx import helper, numpy_helper, shape_inference

from engine.errors import EngineError
from engine.optimize.graph import rules_layers as layers
from engine.optimize.graph import rules_shapes as shapes
from engine.optimize.graph.prepare import known_shapes, prepared
from engine.optimize.graph.walk import Layer, Unfit, Walk, attribute

_SAME = """Abs Cast Ceil Celu Clip Cos Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN
LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Swish Tanh
ThresholdedRelu"""
_ELEMENTWISE = """Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum
Where Xor"""
_POOLS = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"
_REDUCTIONS = """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare"""
_RULES: dict[str, Any] = {
    **dict.fromkeys(_SAME.split(), layers.same),
    **dict.fromkeys(_ELEMENTWISE.split(), layers.elementwise),
    **dict.fromkeys(_POOLS.split(), layers.pool),
    **dict.fromkeys(_REDUCTIONS.split(), shapes.reduce),
    **dict.fromkeys(("Flatten", "Squeeze", "Unsqueeze"), shapes.regroup),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), layers.softmax),
    "BatchNormalization": layers.batch_norm,
    "Concat": shapes.concat,
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "Gather": shapes.gather,
    "Gemm": layers.gemm,
    "InstanceNormalization": layers.channel_norm,
    "LayerNormalization": layers.layer_norm,
    "MatMul": layers.matmul,
    "Pad": shapes.pad,
    "Reshape": shapes.reshape,
    "Resize": shapes.resize,
    "Shape": shapes.shape,
    "Slice": shapes.cut,
    "Split": shapes.split,
    "Transpose": shapes.transpose,
}


@dataclass(frozen=True, slots=True)
class Group:
    """Sets of channels (`roots`) that are found in the same axes. producers, consumers: layers that give or read
    them."""

    roots: Any
    producers: tuple[Layer, ...]
    consumers: tuple[Layer, ...]

    @property
    def name(self) -> str:
        return self.producers[0].name


class Channels:
    """Of a parsed model with Constant nodes, which it normalises in a copy of its own (`model`)."""

    def __init__(self, model: Any) -> None:
        self.model = prepared(model)
        graph = self.model.graph
        opset = max([e.version for e in self.model.opset_import if e.domain in ("", "ai.onnx")], default=1)
        self.walk = Walk(graph, opset, known_shapes(self.model))
        asked = {each.name for each in graph.input}
        for name in asked:
            if name in self.walk.stored:
                self.walk.freeze(name)
            else:
                self.walk.give_unknown(name)
        for node in graph.node:
            self._pass(node)
        for each in graph.output:
            self.walk.freeze(each.name)

    def _pass(self, node: Any) -> None:
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        try:
            if rule is None:
                raise Unfit(f"{node.op_type} is not known")
            for name, axes in zip(node.output, rule(self.walk, node), strict=False):
                if name:
                    self.walk.give(name, axes)
        except (Unfit, ValueError, IndexError, KeyError) as reason:
            # A graph may use an operator in any way its authors liked: what does not fit the rules stays as it is.
            print(f"kept as it is: {node.op_type}: {str(reason)[:100]}")
            self._forget(node)
            self.walk.freeze_node(node)

    def _forget(self, node: Any) -> None:
        walk = self.walk
        walk.layers = [each for each in walk.layers if each.node is not node]
        walk.reshapes = [each for each in walk.reshapes if each[0] is not node]
        walk.splits = [each for each in walk.splits if each is not node]
        walk.depthwise = [each for each in walk.depthwise if each is not node]

    def roots(self, tensor: str, place: int) -> Any:
        """Sets of channels along an axis of a tensor (n,), or None when it is frozen as a whole."""
        axes = self.walk.axes.get(tensor)
        return None if axes is None or axes[place] is None else self.walk.labels.roots(axes[place])

    @cached_property
    def groups(self) -> list[Group]:
        """All that can be pruned, in the order of the graph: given by one layer, read by another, and not frozen."""
        places: dict[int, set[tuple[str, int]]] = {}
        for tensor, axes in self.walk.axes.items():
            for place, axis in enumerate(axes or []):
                for root in set(self.walk.labels.roots(axis).tolist()) if axis is not None else ():
                    places.setdefault(root, set()).add((tensor, place))
        together: dict[frozenset[tuple[str, int]], list[int]] = {}
        for root, where in places.items():
            if not self.walk.labels.frozen(root):
                together.setdefault(frozenset(where), []).append(root)
        found = []
        for key, roots in together.items():
            producers = tuple(each for each in self.walk.layers if (each.weight, each.out_axis) in key)
            consumers = tuple(each for each in self.walk.layers if (each.weight, each.in_axis) in key)
            if producers and consumers and len(roots) > 1:
                found.append(Group(np.array(roots), producers, consumers))
        return sorted(found, key=lambda group: int(group.roots[0]))

    def parameters(self, removed: Iterable[int] = ()) -> int:
        """Stored numbers of all layers' weights once these sets are gone."""
        gone, total = np.array(sorted(removed)), 0
        for weight in {each.weight for each in self.walk.layers}:
            dims = list(self.walk.stored[weight].dims)
            for place, axis in enumerate(self.walk.axes[weight] or []):
                if axis is not None:
                    dims[place] = int((~np.isin(self.walk.labels.roots(axis), gone)).sum())
            total += int(np.prod(dims))
        return total

    def kept(self, tensor: str, place: int, removed: Iterable[int]) -> Any:
        """Which entries (n,) of an axis stay, as booleans; None where all do."""
        roots = self.roots(tensor, place)
        return None if roots is None else ~np.isin(roots, np.array(sorted(removed)))

    def without(self, removed: Iterable[int]) -> Any:
        """A new model without these sets of channels: the one with their weights at zero, but smaller.

        EngineError when the result would not be a valid model."""
        gone = set(removed)
        result = type(self.model)()
        result.CopyFrom(self.model)
        graph = result.graph
        for tensor in graph.initializer:
            self._shrink(tensor, gone)
        nodes = {each.output[0]: each for each in graph.node if each.output}
        for node in self.walk.depthwise:
            keep = self.kept(node.input[0], 1, gone)
            if keep is not None:
                _set(nodes[node.output[0]], "group", int(keep.sum()))
        for node, entries in self.walk.reshapes:
            self._reshape(graph, nodes[node.output[0]], entries, gone)
        for node in self.walk.splits:
            self._split(graph, nodes[node.output[0]], gone)
        del graph.value_info[:]
        try:
            return shape_inference.infer_shapes(result, check_type=True, strict_mode=True)
        except shape_inference.InferenceError as error:
            raise EngineError("The model could not be made smaller: its shapes do not fit any more.") from error

    def _shrink(self, tensor: Any, gone: set[int]) -> None:
        array, changed = None, False
        for place in range(len(tensor.dims)):
            keep = self.kept(tensor.name, place, gone)
            if keep is not None and not keep.all():
                array = numpy_helper.to_array(tensor) if array is None else array
                array, changed = np.compress(keep, array, axis=place), True
        if changed:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))

    def _reshape(self, graph: Any, node: Any, entries: list[Any], gone: set[int]) -> None:
        keeps = [self.kept(node.output[0], place, gone) for place in range(len(entries))]
        if all(keep is None or keep.all() for keep in keeps):
            return
        sizes = [size if keep is None else int(keep.sum()) for size, keep in zip(entries, keeps, strict=True)]
        node.input[1] = _store(graph, f"{node.output[0]}_shape", sizes)

    def _split(self, graph: Any, node: Any, gone: set[int]) -> None:
        place = attribute(node, "axis", 0)
        place += len(self.walk.axes[node.input[0]] or []) if place < 0 else 0
        sizes = []
        for name in node.output:
            keep = self.kept(name, place, gone)
            sizes.append(int(keep.sum()) if keep is not None else self.walk.shape(name)[place])
        for each in [each for each in node.attribute if each.name == "num_outputs"]:
            node.attribute.remove(each)
        if self.walk.opset < 13:
            _set(node, "split", sizes)
        else:
            node.input[:] = [node.input[0], _store(graph, f"{node.output[0]}_sizes", sizes)]


def _set(node: Any, name: str, value: Any) -> None:
    for each in [each for each in node.attribute if each.name == name]:
        node.attribute.remove(each)
    node.attribute.append(helper.make_attribute(name, value))


def _store(graph: Any, name: str, numbers: list[int]) -> str:
    """A new initializer of int64 with a name that nobody has."""
    taken = {each.name for each in graph.initializer} | {name for node in graph.node for name in node.output}
    while name in taken:
        name += "_"
    graph.initializer.append(numpy_helper.from_array(np.array(numbers, dtype=np.int64), name))
    return name
