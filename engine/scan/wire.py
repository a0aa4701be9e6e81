"""Reads protobuf's wire format just enough to say why a parser gave up: cut short, too deep, or noise."""

from __future__ import annotations

from collections.abc import Iterator

# Field numbers on the way down: ModelProto.graph, GraphProto.node, NodeProto.attribute,
# AttributeProto.g / graphs. The way repeats from GraphProto on.
_DOWN: dict[int, tuple[int, ...]] = {0: (7,), 1: (1,), 2: (5,), 3: (6, 11)}
_TOO_DEEP = 24  # graphs; protobuf itself stops at 100 messages


def diagnose(data: bytes) -> str:
    """A sentence for bytes that protobuf could not parse as a ModelProto."""
    fields = list(_fields(data, 0, len(data)))
    known = [number for number, start, _ in fields if 1 <= number <= 25 and start >= 0]
    if fields and fields[-1][1] == -1 and 7 in [number for number, _, _ in fields]:
        return "The ONNX file is cut short: upload it again."
    if nesting(data) > _TOO_DEEP:
        return f"Graphs are nested more than {_TOO_DEEP} deep."
    if 7 in known:
        return "The ONNX file is damaged: its graph cannot be read."
    return "This is not an ONNX model."


def nesting(data: bytes) -> int:
    """How many graphs lie within each other, following the first bodies; stops at 1000."""
    deepest, todo = 0, [(0, len(data), 0, 0)]
    steps = 0
    while todo and steps < 200_000:
        start, end, level, depth = todo.pop()
        deepest = max(deepest, depth)
        for number, first, last in _fields(data, start, end):
            steps += 1
            if first >= 0 and number in _DOWN[level] and depth < 1000:
                below = 1 if level in (0, 3) else level + 1
                todo.append((first, last, below, depth + (below == 1)))
    return deepest


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return -1, at


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each field's bytes; start is -1 for a number, or for one cut short (last)."""
    while at < end:
        key, at = _varint(data, at, end)
        if key <= 0:
            yield 0, -1, -1
            return
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, at = _varint(data, at, end)
            continue
        if kind in (1, 5):
            at += 8 if kind == 1 else 4
            continue
        if kind != 2:
            yield number, -1, -1
            return
        length, at = _varint(data, at, end)
        if length < 0 or at + length > end:
            yield number, -1, -1
            return
        yield number, at, at + length
        at += length
