"""Loops whose number of rounds is written in the model: more than a request can wait for is refused unrun.

A number that the model computes is known only by running it; that happens under a clock (`onnx_run`).
"""

from __future__ import annotations

from typing import Any

from engine.scan.names import printable
from engine.scan.refusal import refuse

MAX_ROUNDS = 2**24  # of all loops around a place together; about 10 s of the cheapest body there is


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
