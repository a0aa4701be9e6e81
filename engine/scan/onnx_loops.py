"""Loops: where the number of rounds is written in the model, more than a request can wait for is refused unrun.

A number that the model computes is known only by running it; that happens under a clock (`onnx_run`), which is short
where there is a loop: one row of zeros is what the quickest answer is made of.
"""

from __future__ import annotations

from typing import Any

from engine.scan.names import printable
from engine.scan.refusal import refuse

MAX_ROUNDS = 2**24  # of all loops around a place together; the clock ends the rest
_REPEAT = {"Loop", "Scan", "SequenceMap"}
_SECONDS = 1.0  # with the start of the process it is answered within 2 s
_BYTES_PER_SECOND = 50e6  # honest loops around large weights take longer, and so does sending such a file
_MOST_SECONDS = 20.0


def seconds_for(model: Any, size: int) -> float:
    """How long one inference on zeros may take in a file of `size` bytes."""
    if any(_repeats(each) for each in (model.graph, *model.functions)):
        return min(_MOST_SECONDS, _SECONDS + size / _BYTES_PER_SECOND)
    return _MOST_SECONDS


def _repeats(graph: Any) -> bool:
    for node in graph.node:
        if node.op_type in _REPEAT:
            return True
        for attribute in node.attribute:
            bodies = [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
            if any(_repeats(body) for body in bodies):
                return True
    return False


def check(model: Any) -> None:
    """Looks at the graph and at every function of the model. EngineError(field="file")."""
    for each in (model.graph, *model.functions):
        _check(each)


def _check(graph: Any, outer: dict[str, int] | None = None, rounds: int = 1) -> None:
    """Follows bodies within bodies; their depth is already bounded."""
    known = {**(outer or {}), **_numbers(graph)}
    for node in graph.node:
        here = rounds
        if node.op_type == "Loop" and node.input:
            here *= max(1, known.get(node.input[0], 1))
            if here > MAX_ROUNDS:
                raise refuse(f"The Loop '{printable(node.name)}' goes {here} rounds: too many to answer.", code="loop")
        for attribute in node.attribute:
            for body in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                _check(body, known, here)


def _numbers(graph: Any) -> dict[str, int]:
    """Single whole numbers that are stored in the graph, by name."""
    found = {each.name: _number(each) for each in getattr(graph, "initializer", ())}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for each in node.attribute:
                if each.name == "value_int":
                    found[node.output[0]] = each.i
                elif each.HasField("t"):
                    found[node.output[0]] = _number(each.t)
    return {name: number for name, number in found.items() if number is not None}


def _number(tensor: Any) -> int | None:
    if tensor.data_type != 7 or len(tensor.dims) > 1 or any(size != 1 for size in tensor.dims):
        return None
    if tensor.raw_data:
        return int.from_bytes(tensor.raw_data[:8], "little", signed=True)
    return tensor.int64_data[0] if tensor.int64_data else None
