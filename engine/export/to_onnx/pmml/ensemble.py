"""Binary trees collected into the attributes of one TreeEnsembleRegressor (ai.onnx.ml 3, float64 thresholds)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.export.to_onnx.pmml.expressions import Expression, refuse

if TYPE_CHECKING:
    from engine.export.to_onnx.pmml.graph import Graph

_MOST_NODES = 5_000_000


class Ensemble:
    """Sums of leaves over trees, `targets` numbers a row. Nodes are numbered from the leaves up; ONNX wants the root
    to be node 0 of its tree, so numbers are turned around when a tree is written."""

    def __init__(self, targets: int) -> None:
        self.targets = targets
        self.may_be_missing = False
        self.features: dict[Expression, int] = {}
        # of each tree, its nodes: (feature, mode, threshold, true, false, missing goes to true) or leaf values
        self._trees: list[list[tuple[int, str, float, int, int, bool] | list[float]]] = []
        self._count = 0

    def begin(self) -> None:
        """A new tree; the node added last to it is its root."""
        self._trees.append([])

    def leaf(self, values: list[float]) -> int:
        return self._added(values)

    def branch(
        self, field: Expression, mode: str, value: float, yes: int, no: int, *, missing_true: bool = False
    ) -> int:
        feature = self.features.setdefault(field, len(self.features))
        return self._added((feature, mode, value, yes, no, missing_true))

    def _added(self, node: tuple[int, str, float, int, int, bool] | list[float]) -> int:
        self._count += 1
        if self._count > _MOST_NODES:
            raise refuse(f"trees of more than {_MOST_NODES:,} nodes")
        self._trees[-1].append(node)
        return len(self._trees[-1]) - 1

    def drawn(self, graph: Graph) -> str:
        """Tensor [N, targets], float64; the operator itself rounds its sums to 32 bits."""
        import numpy as np
        from onnx import helper, numpy_helper

        nodes: dict[str, list[int]] = {
            name: [] for name in ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")
        }
        tracks: list[int] = []
        modes: list[str] = []
        values: list[float] = []
        targets: dict[str, list[int]] = {name: [] for name in ("treeids", "nodeids", "ids")}
        weights: list[float] = []
        for tree, entries in enumerate(self._trees):
            last = len(entries) - 1
            for index in range(last, -1, -1):
                entry, number = entries[index], last - index
                if isinstance(entry, list):
                    for target, weight in enumerate(entry):
                        if weight or not target:
                            _extend(targets, treeids=tree, nodeids=number, ids=target)
                            weights.append(weight)
                    entry = (0, "LEAF", 0.0, last, last, False)
                feature, mode, value, yes, no, missing = entry
                _extend(nodes, treeids=tree, nodeids=number, featureids=feature)
                _extend(nodes, truenodeids=last - yes, falsenodeids=last - no)
                tracks.append(int(missing))
                modes.append(mode)
                values.append(value)
        if not self.features:
            raise refuse("TreeModel that asks about no field")
        attributes: dict[str, Any] = {f"nodes_{name}": each for name, each in nodes.items()}
        attributes |= {f"target_{name}": each for name, each in targets.items()}
        made = helper.make_node(
            "TreeEnsembleRegressor", [], [], domain="ai.onnx.ml", n_targets=self.targets, nodes_modes=modes,
            nodes_missing_value_tracks_true=tracks,
            nodes_values_as_tensor=numpy_helper.from_array(np.array(values), "values"),
            target_weights_as_tensor=numpy_helper.from_array(np.array(weights), "weights"), **attributes,
        )  # fmt: skip
        rows = graph.columns(tuple(self.features))
        made.name = f"trees_{len(graph.nodes)}"
        made.input.append(rows)
        made.output.append(made.name)
        graph.nodes.append(made)
        return graph.add("Cast", made.name, to=11)


def _extend(lists: dict[str, list[int]], **values: int) -> None:
    for name, value in values.items():
        lists[name].append(value)
