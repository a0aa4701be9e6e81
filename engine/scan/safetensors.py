"""The structure of a safetensors file, checked on its header alone: lengths, offsets, shapes, names."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from engine.scan.names import printable

MAX_HEADER = 100_000_000  # the format's own limit
MAX_TENSORS = 100_000
MAX_ELEMENTS = 2**40
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F4": 4,
    "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_KEYS = {"dtype", "shape", "data_offsets"}


class Unfit(Exception):
    """What is wrong, in a sentence for a person."""


def problem(path: Path) -> str | None:
    """What is wrong with the safetensors file at `path`, the first thing found; None when nothing is."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 10:
                return "The safetensors file is cut short: it has no header."
            if length > MAX_HEADER:
                return f"The safetensors header says it has {length} bytes; at most {MAX_HEADER} are possible."
            if length > size - 8:
                return f"The safetensors header says it has {length} bytes, more than the file."
            _check(file.read(length), size - 8 - length)
    except Unfit as error:
        return str(error)
    return None


def _check(header: bytes, stored: int) -> None:
    tensors = _parsed(header)
    notes = tensors.pop("__metadata__", {})
    if not isinstance(notes, dict) or any(not isinstance(value, str) for value in notes.values()):
        raise Unfit("The safetensors header has notes (__metadata__) that are no texts.")
    if len(tensors) > MAX_TENSORS:
        raise Unfit(f"The safetensors file holds more than {MAX_TENSORS} tensors.")
    spans = sorted((*_span(name, entry, stored), name) for name, entry in tensors.items())
    at = 0
    for start, end, name in spans:
        if start < at:
            raise Unfit(f"The tensor '{printable(name)}' overlaps another one: its offsets are wrong.")
        if start > at:
            raise Unfit(f"There are bytes before the tensor '{printable(name)}' that belong to none.")
        at = end
    if at != stored:
        raise Unfit(f"The safetensors file has {stored} bytes of data instead of {at}.")


def _parsed(header: bytes) -> dict[str, Any]:
    # Its own limits: a text of brackets recurses, and a number of a million digits takes minutes.
    if header.count(b"[") + header.count(b"{") > 4 * MAX_TENSORS:
        raise Unfit(f"The safetensors file holds more than {MAX_TENSORS} tensors.")
    try:
        found = json.loads(header.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Unfit("The safetensors header is not plain JSON.") from error
    if not isinstance(found, dict):
        raise Unfit("The safetensors header is not a JSON object.")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys come once: readers differ in which of two they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        counted: set[str] = set()
        twice = next(key for key, _ in pairs if key in counted or counted.add(key))  # type: ignore[func-returns-value]
        raise Unfit(f"The safetensors header has the key '{printable(twice)}' twice.")
    return found


def _span(name: str, entry: Any, stored: int) -> tuple[int, int]:
    """(start, end) of a tensor's bytes, after checking that they are as many as its type and shape say."""
    shown = printable(name)
    if name.startswith("__") or "*/" in name or not name:
        raise Unfit(f"The safetensors key '{shown}' is not allowed.")
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        odd = next((key for key in entry if key not in _KEYS), None) if isinstance(entry, dict) else None
        raise Unfit(
            f"The tensor '{shown}' has the unknown key '{printable(odd)}'." if odd else
            f"The tensor '{shown}' lacks its type, shape or offsets."
        )  # fmt: skip
    if entry["dtype"] not in _BITS:
        raise Unfit(f"The tensor '{shown}' has an unknown data type.")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _whole(shape) or not _whole(offsets) or len(offsets) != 2 or len(shape) > 64:
        raise Unfit(f"The tensor '{shown}' has a negative or unreadable shape or offset.")
    start, end = offsets
    if end < start or end > stored:
        raise Unfit(f"The offsets of the tensor '{shown}' lie outside the file's data.")
    count = 1
    for count in itertools.accumulate([1, *shape], lambda total, size: total * size):
        if count > MAX_ELEMENTS:
            raise Unfit(f"The dimensions of the tensor '{shown}' are too large.")
    needed = -(-count * _BITS[entry["dtype"]] // 8)
    if end - start != needed:
        raise Unfit(f"The tensor '{shown}' has {end - start} bytes instead of {needed}.")
    return start, end


def _whole(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(each) is int and each >= 0 for each in numbers)
