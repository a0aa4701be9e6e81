"""Residual blocks of a graph: what is added to a tensor that would also pass without it, and graphs without some."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from engine.optimize.graph.biases import drop_unused
from engine.optimize.graph.prepare import known_shapes, prepared
from engine.optimize.graph.walk import Size, names_read

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# A longer branch is no block, and is not walked through to its end.
_MOST_NODES = 200
_MOST_STEPS = 5_000


@dataclass(frozen=True, slots=True)
class Block:
    """out: the tensor that the block gives, the sum of `kept` and a branch. kept: what passes once the branch is gone,
    in the same shape. layers: linear layers of the branch. name: of the node that adds."""

    name: str
    out: str
    kept: str
    layers: int


class Blocks:
    """Of a parsed model, which it normalises in a copy of its own (`model`). all: in the order of the graph, none with
    another inside."""

    def __init__(self, model: Any) -> None:
        self.model = prepared(model)
        graph = self.model.graph
        self._makers = {name: node for node in graph.node for name in node.output if name}
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in names_read(node):
                self._readers.setdefault(name, []).append(node)
        self._outputs = {each.name for each in graph.output}
        self._open = set(self._makers) | {each.name for each in graph.input}
        shapes = known_shapes(self.model)
        found: dict[str, Block] = {}
        for node in graph.node:
            if node.op_type == "Add" and node.domain in ("", "ai.onnx"):
                out = node.output[0]
                same = {name for name in node.input if _alike(shapes.get(name, []), shapes.get(out, []))}
                block = self._block(node, same & self._open, found.keys())
                if block is not None:
                    found[out] = block
        self.all = list(found.values())

    def _block(self, join: Any, may_stay: set[str], known: Collection[str]) -> Block | None:
        """What the node `join` closes: the side with more layers goes, if the other may stay."""
        sides = [(kept, branch) for kept, branch in (join.input, list(join.input)[::-1]) if kept in may_stay]
        best = None
        for kept, branch in sides:
            nodes = self._branch(join, branch, kept)
            layers = sum(node.op_type in _LAYERS for node in nodes)
            if layers and not any(node.output[0] in known for node in nodes) and self._beside(kept, nodes):
                block = Block(join.name or join.output[0], join.output[0], kept, layers)
                best = max(best or block, block, key=lambda each: each.layers)
        return best

    def _branch(self, join: Any, name: str, kept: str) -> list[Any]:
        """The nodes that work for the input `name` of `join` alone, not for `kept`; [] for too many."""
        own: dict[str, Any] = {}
        todo = [name]
        for _ in range(_MOST_STEPS):
            if not todo or len(own) > _MOST_NODES:
                break
            node = self._makers.get(todo.pop())
            if node is None or kept in node.output or node.output[0] in own:
                continue
            if self._only_for(node, join, own):
                own[node.output[0]] = node
                todo += names_read(node)
        return [] if todo else list(own.values())

    def _only_for(self, node: Any, join: Any, own: dict[str, Any]) -> bool:
        readers = (reader for name in node.output for reader in self._readers.get(name, ()))
        return not self._outputs.intersection(node.output) and all(
            reader is join or reader.output[0] in own for reader in readers
        )

    def _beside(self, kept: str, branch: list[Any]) -> bool:
        """Whether what stays was made from what the branch reads, too: both ways begin at one place."""
        own = {name for node in branch for name in node.output}
        read = {name for node in branch for name in names_read(node) if name in self._open} - own
        seen: set[str] = set()
        todo = [kept]
        for _ in range(_MOST_STEPS):
            if not todo or len(seen) > _MOST_NODES:
                return False
            name = todo.pop()
            if name in read:
                return True
            if name not in seen and name in self._makers:
                seen.add(name)
                todo += names_read(self._makers[name])
        return False

    def without(self, gone: Collection[str]) -> Any:
        """A new model without the branches of the blocks whose `out` is in `gone`."""
        result = type(self.model)()
        result.CopyFrom(self.model)
        graph = result.graph
        instead = {block.out: block.kept for block in self.all if block.out in gone}
        for node in graph.node:
            node.input[:] = [_last(instead, name) for name in node.input]
            maker = self._makers.get(node.input[0]) if node.op_type == "Relu" else None
            if maker is not None and maker.op_type == "Relu" and node.output[0] not in self._outputs:
                # What is positive already needs it no second time.
                instead[node.output[0]] = node.input[0]
        for node in graph.node:
            if node.output[0] in self._outputs & instead.keys():
                node.op_type = "Identity"
                node.input[:] = [_last(instead, node.output[0])]
        _sweep(graph)
        return result


def _alike(kept: list[Size], out: list[Size]) -> bool:
    """Whether a sum has the shape of one of its parts, as far as is known before a call: an open size is taken for the
    same, but 1 beside an open one may have been stretched."""
    if not kept or len(kept) != len(out):
        return False
    return all(
        left == right or (left != 1 and not (isinstance(left, int) and isinstance(right, int)))
        for left, right in zip(kept, out, strict=True)
    )


def _last(instead: dict[str, str], name: str) -> str:
    while name in instead:
        name = instead[name]
    return name


def _sweep(graph: Any) -> None:
    """Removes nodes and weights that nothing reads; a weight that a caller could replace goes as an input, too."""
    needed = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(names_read(node))
    nodes = [type(node).FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    dropped = drop_unused(graph)
    for each in [each for each in graph.input if each.name in dropped]:
        graph.input.remove(each)
