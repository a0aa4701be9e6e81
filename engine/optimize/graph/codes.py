"""Weights as small codes: packed in the file, decoded by standard operators when a runtime loads it.

A weight of (rows, n) is stored as codes q into books of k values and, optionally, scales of blocks of its row-major
elements: w'[r, i] = book[group of r][q[r, i]] * scale[block of (r, i)]. Only Cast, Div, Mul, Sub, Concat, Add, Gather,
Slice, Reshape and Transpose are used, all of constants, so a runtime that folds constants (ONNX Runtime does) pays
once, at loading. Books of up to 16 values pack two codes to a byte. That is done with arithmetic and not with the uint4
of opset 21, because any opset from 10 has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.optimize.graph.model import no_gain, open_model, save
from engine.optimize.graph.weights import LEAST_ELEMENTS, Weight, weights

# Slice took its bounds as attributes before opset 10.
LEAST_OPSET = 10


@dataclass(frozen=True, slots=True)
class Coded:
    """codes: uint8 (rows, n). books: float32 (groups, k), a row r belongs to group r * groups // rows.
    scales: float32 (blocks,) over the row-major elements in stretches of `block`, or None."""

    codes: Any
    books: Any
    scales: Any | None = None
    block: int = 0

    def decoded(self) -> Any:
        """float32 (rows, n), as the graph computes it."""
        import numpy as np

        values = self.books[groups(len(self.codes), len(self.books))[:, None], self.codes]
        if self.scales is None:
            return values
        stretched = np.repeat(self.scales, self.block)[: values.size]
        return values * stretched.reshape(values.shape)


def code_all(source: Path, target: Path, encode: Callable[[Any], Coded], least: int = LEAST_ELEMENTS) -> str:
    """Writes `source` to `target` with every weight of `least` elements as `encode` codes its (rows, n) array; a note.

    The note's change of weights is ||w - w'|| / ||w|| over all of them. EngineError(code="no-gain") without weights.
    """
    import numpy as np

    model = open_model(source, LEAST_OPSET)
    found = weights(model, least)
    if not found:
        raise no_gain("no weights that are large enough for this")
    change, total = 0.0, 0.0
    for weight in found:
        rows = weight.rows()
        coded = encode(rows)
        change += float(np.sum((rows - coded.decoded()) ** 2, dtype=np.float64))
        total += float(np.sum(rows**2, dtype=np.float64))
        replace(model, weight, coded)
    save(model, target)
    return f"{len(found)} tensors coded; their weights change by {(change / total) ** 0.5 if total else 0:.1%}."


def groups(rows: int, count: int) -> Any:
    """The group (rows,) of each row: `count` stretches of about one length."""
    import numpy as np

    return np.arange(rows) * count // rows


def nearest(values: Any, book: Any) -> Any:
    """uint8 indices of the entries of the ascending `book` that are nearest to `values`."""
    import numpy as np

    return np.searchsorted((book[1:] + book[:-1]) / 2, values).astype(np.uint8)


def replace(model: Any, weight: Weight, coded: Coded) -> None:
    """Puts the codes and their decoding in the place of an initializer; whoever read it reads the decoded tensor, which
    has its name."""
    import numpy as np

    shape = list(weight.tensor.dims)
    front = [shape[weight.axis], *shape[: weight.axis], *shape[weight.axis + 1 :]]
    chain = _Chain(weight.name)
    count = int(np.prod(shape))
    indices = _indices(chain, coded, count)
    values = chain.node("Gather", chain.constant("book", coded.books.reshape(-1)), indices, axis=0)
    if coded.scales is not None:
        values = _scaled(chain, values, coded, count)
    values = chain.node("Reshape", values, chain.constant("shape", np.array(front, np.int64)))
    if weight.axis:
        order = [*range(1, weight.axis + 1), 0, *range(weight.axis + 1, len(shape))]
        values = chain.node("Transpose", values, perm=order)
    chain.nodes[-1].output[0] = weight.name
    graph = model.graph
    kept = [each for each in graph.initializer if each.name != weight.name]
    nodes = [*chain.nodes, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *chain.constants])
    graph.node.extend(nodes)


def _indices(chain: _Chain, coded: Coded, count: int) -> str:
    """int32 (count,) or (rows, n) positions in the flattened books."""
    import numpy as np

    many, size = coded.books.shape
    flat = coded.codes.reshape(-1)
    if size <= 16:
        half = -(-count // 2)
        low, high = flat[:half], np.zeros(half, np.uint8)
        high[: count - half] = flat[half:]
        packed = chain.node("Cast", chain.constant("codes", low | (high << 4)), to=6)
        sixteen = chain.constant("sixteen", np.array([16], np.int32))
        upper = chain.node("Div", packed, sixteen)
        lower = chain.node("Sub", packed, chain.node("Mul", upper, sixteen))
        indices = chain.node("Concat", lower, upper, axis=0)
        if count % 2:
            indices = chain.cut(indices, count)
    else:
        indices = chain.node("Cast", chain.constant("codes", flat), to=6)
    if many > 1:
        offsets = (groups(len(coded.codes), many) * size).astype(np.int32)
        shape = chain.constant("rows", np.array(coded.codes.shape, np.int64))
        indices = chain.node("Reshape", indices, shape)
        indices = chain.node("Add", indices, chain.constant("offsets", offsets[:, None]))
    return indices


def _scaled(chain: _Chain, values: str, coded: Coded, count: int) -> str:
    """The values, each block times its scale; a last block that is not full is filled up and cut again."""
    import numpy as np

    missing = len(coded.scales) * coded.block - count  # type: ignore[arg-type]
    if missing:
        values = chain.node("Concat", values, chain.constant("fill", np.zeros(missing, np.float32)), axis=0)
    blocks = chain.constant("blocks", np.array([-1, coded.block], np.int64))
    values = chain.node("Reshape", values, blocks)
    values = chain.node("Mul", values, chain.constant("scales", coded.scales[:, None]))  # type: ignore[index]
    if missing:
        values = chain.node("Reshape", values, chain.constant("flat", np.array([-1], np.int64)))
        values = chain.cut(values, count)
    return values


class _Chain:
    """Nodes and constants that decode one weight, named after it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, part: str, array: Any) -> str:
        import numpy as np
        from onnx import numpy_helper

        name = f"{self.name}/{part}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        output = f"{self.name}/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def cut(self, values: str, count: int) -> str:
        """The first `count` elements."""
        import numpy as np

        start = self.constant("start", np.array([0], np.int64))
        return self.node("Slice", values, start, self.constant("end", np.array([count], np.int64)))
