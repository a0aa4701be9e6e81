"""Inputs of a request to numpy arrays: straight from simdjson's buffer, from binary data, or value by value.

Every refusal is a BadInput that names the input.
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import simdjson

from serving.model import Model, Tensor
from serving.protocol.datatypes import BY_NAME, WIDE, Datatype
from serving.protocol.envelope import Envelope, RawInput
from serving.protocol.errors import BadInput, shown
from serving.values import to_bfloat16

# Values looked at one by one become Python objects, of up to 80 bytes for 2 bytes of JSON.
MAX_ONE_BY_ONE = 2_000_000
# An empty tensor may have other dimensions of any size; beyond this even numpy refuses to think of it.
MAX_ELEMENTS = 1 << 40

_FEW = 1024
_ZEROS = np.zeros(_FEW, np.float32)
# What overflows is refused; numpy need not warn of it as well.
warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning)
warnings.filterwarnings("ignore", "invalid value encountered in dot", RuntimeWarning)


def build_feeds(
    model: Model, envelope: Envelope, body: bytes | bytearray | memoryview, json_size: int
) -> dict[str, np.ndarray]:
    """Arrays by input name, each of the declared shape and the model's dtype (BYTES: object of str).

    `body` is the whole request body; binary data starts at `json_size` bytes. Raises BadInput."""
    feeds: dict[str, np.ndarray] = {}
    offset = json_size
    by_name = model.input_by_name
    for raw in envelope.inputs:
        tensor = by_name.get(raw.name)
        if tensor is None:
            raise BadInput(f"the model has no input {shown(raw.name)!r}")
        if raw.datatype != tensor.datatype.name:
            _wrong_datatype(raw, tensor)
        shape = raw.shape
        check_shape(raw.name, shape, tensor.shape)
        if raw.binary_size is None:
            feeds[raw.name] = _from_json(raw, tensor.datatype)
        else:
            end = offset + raw.binary_size
            if end > len(body):
                raise BadInput(
                    f"input {shown(raw.name)!r}: its binary data of {raw.binary_size} bytes "
                    f"goes beyond the end of the body"
                )
            feeds[raw.name] = from_binary(raw.name, shape, tensor.datatype, memoryview(body)[offset:end])
            offset = end
    if offset != len(body):
        raise BadInput(f"the body has {len(body) - offset} bytes that belong to no input")
    if len(feeds) != len(model.inputs):
        missing = next((t.name for t in model.inputs if t.name not in feeds and not t.optional), None)
        if missing is not None:
            raise BadInput(f"input {shown(missing)!r} is missing")
    document = body if json_size == len(body) else memoryview(body)[:json_size]
    _prove_nesting(envelope.inputs, envelope.asked, document)
    return feeds


def raw_feeds(model: Model, body: bytes | bytearray | memoryview) -> dict[str, np.ndarray]:
    """The body as the one input of the model, its free dimension found from the size. Raises BadInput."""
    if len(model.inputs) != 1:
        raise BadInput(f"a raw body needs a model with one input; this one has {len(model.inputs)}")
    tensor = model.inputs[0]
    dims = list(tensor.shape or ())
    if tensor.datatype.name == "BYTES":
        shape = [1 if d < 0 else d for d in dims]
        if math.prod(shape) != 1:
            raise BadInput(f"input {shown(tensor.name)!r}: a raw body carries one string only")
        return {tensor.name: np.array([_text(tensor.name, body)], dtype=object).reshape(shape)}
    free = [i for i, d in enumerate(dims) if d < 0]
    if len(free) > 1 and free[0] == 0:
        dims[0] = 1  # a batch of one
        free = free[1:]
    if len(free) > 1:
        raise BadInput(f"input {shown(tensor.name)!r}: a raw body needs at most one free dimension")
    row = math.prod(d for d in dims if d >= 0) * tensor.datatype.size
    if free:
        if row == 0 or len(body) % row:
            raise BadInput(f"input {shown(tensor.name)!r}: {len(body)} bytes are no multiple of {row}")
        dims[free[0]] = len(body) // row
    return {tensor.name: from_binary(tensor.name, dims, tensor.datatype, memoryview(body))}


def check_shape(name: str, shape: Sequence[int], expected: tuple[int, ...] | None) -> None:
    """Compare a request's shape with the model's (-1 takes any). Raises BadInput."""
    if 0 in shape and math.prod(d for d in shape if d) > MAX_ELEMENTS:
        raise BadInput(f"input {shown(name)!r}: shape {shown(list(shape))} is too large")
    if expected is None:
        return
    if len(shape) == len(expected):
        for given, wanted in zip(shape, expected, strict=True):
            if given != wanted and wanted >= 0:
                break
        else:
            return
    raise BadInput(f"input {shown(name)!r}: shape {shown(list(shape))} does not fit the model's {list(expected)}")


def _wrong_datatype(raw: RawInput, tensor: Tensor) -> NoReturn:
    if raw.datatype not in BY_NAME:
        raise BadInput(f"input {shown(raw.name)!r}: datatype {shown(raw.datatype)!r} is unknown")
    raise BadInput(
        f"input {shown(raw.name)!r}: datatype {raw.datatype} does not fit the model's {tensor.datatype.name}"
    )


def from_binary(name: str, shape: Sequence[int], datatype: Datatype, data: memoryview) -> np.ndarray:
    """A tensor from little-endian bytes; BYTES elements have a 4-byte length each. Raises BadInput."""
    count = math.prod(shape)
    if datatype.name == "BYTES":
        return _strings_from_binary(name, shape, count, data)
    if count * datatype.size != len(data):
        raise BadInput(
            f"input {shown(name)!r}: shape {shown(list(shape))} of {datatype.name} needs "
            f"{shown(count * datatype.size)} bytes, {len(data)} were given"
        )
    if datatype.name == "BOOL" and count and np.frombuffer(data, np.uint8).max() > 1:
        raise BadInput(f"input {shown(name)!r}: a BOOL byte must be 0 or 1")
    # ONNX Runtime wants aligned memory; a JSON header of odd length leaves the data unaligned.
    array = np.frombuffer(data, datatype.dtype)
    return (array if array.flags.aligned else array.copy()).reshape(shape)


def _strings_from_binary(name: str, shape: Sequence[int], count: int, data: memoryview) -> np.ndarray:
    if count * 4 > len(data):
        raise BadInput(f"input {shown(name)!r}: {len(data)} bytes are too few for {shown(count)} strings")
    values = np.empty(count, dtype=object)
    offset = 0
    for i in range(count):
        if offset + 4 > len(data):
            raise BadInput(f"input {shown(name)!r}: the data ends before string {i}")
        (length,) = struct.unpack_from("<I", data, offset)
        offset += 4
        if offset + length > len(data):
            raise BadInput(f"input {shown(name)!r}: string {i} goes beyond its data")
        values[i] = _text(name, data[offset : offset + length])
        offset += length
    if offset != len(data):
        raise BadInput(f"input {shown(name)!r}: {len(data) - offset} bytes follow its last string")
    return values.reshape(shape)


def _text(name: str, data: bytes | bytearray | memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        # A string of an ONNX tensor is UTF-8; anything else would come back changed.
        raise BadInput(f"input {shown(name)!r}: a BYTES element is not valid UTF-8") from None


def _from_json(raw: RawInput, datatype: Datatype) -> np.ndarray:
    shape, data = raw.shape, raw.data
    count = math.prod(shape)
    if datatype.buffer is None or isinstance(data, list):
        return _one_by_one(raw, datatype, count)
    if not count:
        return _one_by_one(raw, datatype, count)
    try:
        wide = np.frombuffer(data.as_buffer(of_type=datatype.buffer), WIDE[datatype.buffer])
    except (TypeError, ValueError):
        # Something in it is not such a number, or nothing is in it: the slow way says what.
        return _one_by_one(raw, datatype, count)
    _check_count(raw, wide.size, count)
    return narrow(raw, wide, datatype).reshape(shape)


def _prove_nesting(inputs: Sequence[RawInput], asked: bool, document: bytes | bytearray | memoryview) -> None:
    """simdjson's buffer flattens whatever it finds; show that data is flat or nested exactly as its shape.

    The arrays of the document are counted by their brackets. Were every tensor what it seems from its first
    element, the document would have a known number of them; only where it has others (a bracket in a
    string is enough) is each tensor looked at on its own. Raises BadInput."""
    expected = 2 if asked else 1
    for raw in inputs:
        data = raw.data
        expected += 2 if data is not None else 1
        if data is not None and len(data) and isinstance(data[0], simdjson.Array | list):
            _check_nesting(raw, data, 0)
            expected += _inner_arrays(raw.shape)
    if _count_brackets(document, expected) == expected:
        return
    for raw in inputs:
        if isinstance(raw.data, simdjson.Array) and BY_NAME[raw.datatype].buffer is not None:
            nested = len(raw.data) > 0 and isinstance(raw.data[0], simdjson.Array)
            # Only numbers and arrays are in there (the buffer was made, or each value looked at), so every
            # bracket is an array's. Text and BOOL were read value by value.
            text: Any = raw.data.mini  # bytes, whatever its stub says
            if text.count(b"[") != 1 + (_inner_arrays(raw.shape) if nested else 0):
                raise BadInput(f"input {shown(raw.name)!r}: its data is not nested as its shape says")


def _inner_arrays(shape: Sequence[int]) -> int:
    """How many arrays lie inside a fully nested tensor's outermost one."""
    total, rows = 0, 1
    for dim in shape[:-1]:
        rows *= dim
        total += rows
    return total


def _count_brackets(document: bytes | bytearray | memoryview, expected: int) -> int:
    """Number of "[" in the JSON; for few of them stops one beyond `expected`."""
    text = bytes(document) if isinstance(document, memoryview) else document
    if expected > 64:
        return text.count(b"[")
    found, at = 0, text.find(b"[")
    while at >= 0 and found <= expected:
        found += 1
        at = text.find(b"[", at + 1)
    return found


def _check_nesting(raw: RawInput, data: Any, depth: int) -> None:
    """Every array above the innermost ones has the length its shape says. Raises BadInput."""
    shape = raw.shape
    if depth >= len(shape) or len(data) != shape[depth]:
        raise BadInput(f"input {shown(raw.name)!r}: its data is not nested as its shape says")
    if depth + 1 == len(shape):
        return
    for item in data:
        if not isinstance(item, simdjson.Array | list):
            raise BadInput(f"input {shown(raw.name)!r}: its data is not nested as its shape says")
        _check_nesting(raw, item, depth + 1)


def narrow(raw: RawInput, wide: np.ndarray, datatype: Datatype) -> np.ndarray:
    """From the parser's 64-bit numbers to the datatype; out of range is refused, never wrapped."""
    if datatype.buffer == "d":
        if wide.size <= _FEW and datatype.name == "FP32":
            # The same for few numbers, at a third of the price of a change of numpy's error handling: an
            # infinity times zero is no number. There is none among the numbers of a JSON text.
            array = wide.astype(np.float32)
            if array.dot(_ZEROS[: wide.size]) == 0:
                return array
        try:
            with np.errstate(over="raise"):
                return to_bfloat16(wide) if datatype.name == "BF16" else wide.astype(datatype.dtype)
        except FloatingPointError:
            raise BadInput(f"input {shown(raw.name)!r}: a number is too large for {datatype.name}") from None
    if wide.size and datatype.size < 8 and datatype.low is not None and datatype.high is not None:
        low, high = int(wide.min()), int(wide.max())
        if low < datatype.low or high > datatype.high:
            wrong = low if low < datatype.low else high
            raise BadInput(f"input {shown(raw.name)!r}: {wrong} does not fit {datatype.name}")
    elif wide.size and datatype.name == "UINT64":
        return wide
    return wide.astype(datatype.dtype)


def _check_count(raw: RawInput, found: int, count: int) -> None:
    if found != count:
        raise BadInput(
            f"input {shown(raw.name)!r}: shape {shown(raw.shape)} needs {shown(count)} values, {found} were given"
        )


def _one_by_one(raw: RawInput, datatype: Datatype, count: int) -> np.ndarray:
    """The exact way: every value is looked at. Also the way that says what is wrong. Raises BadInput."""
    if len(raw.data) > MAX_ONE_BY_ONE or count > MAX_ONE_BY_ONE:
        _check_count(raw, len(raw.data), count)
        raise BadInput(
            f"input {shown(raw.name)!r}: its values are not all {datatype.name}, or more than "
            f"{MAX_ONE_BY_ONE} (send them as binary data)"
        )
    data = raw.data if isinstance(raw.data, list) else raw.data.as_list()
    if data and isinstance(data[0], list):
        _check_nesting(raw, data, 0)
        for _ in raw.shape[1:]:
            data = [value for row in data for value in row]
    check = _CHECKS.get(datatype.name, _check_integer if datatype.low is not None else _check_float)
    for value in data:
        check(raw.name, value, datatype)
    _check_count(raw, len(data), count)
    if datatype.buffer != "d":
        array = np.empty(count, datatype.dtype)
        array[:] = data
        return array.reshape(raw.shape)
    try:
        wide = np.array([float(value) for value in data], np.float64)
    except OverflowError:
        raise BadInput(f"input {shown(raw.name)!r}: a number is too large for {datatype.name}") from None
    return narrow(raw, wide, datatype).reshape(raw.shape)


def _check_integer(name: str, value: Any, datatype: Datatype) -> None:
    if type(value) is not int:
        raise BadInput(f"input {shown(name)!r}: {_word(value)} is no whole number, as {datatype.name} needs")
    if datatype.low is not None and datatype.high is not None and not datatype.low <= value <= datatype.high:
        raise BadInput(f"input {shown(name)!r}: {shown(value)} does not fit {datatype.name}")


def _check_float(name: str, value: Any, datatype: Datatype) -> None:
    if type(value) is not int and type(value) is not float:
        raise BadInput(f"input {shown(name)!r}: {_word(value)} is no number, as {datatype.name} needs")


def _check_bool(name: str, value: Any, datatype: Datatype) -> None:
    if type(value) is not bool:
        raise BadInput(f"input {shown(name)!r}: {_word(value)} is neither true nor false")


def _check_text(name: str, value: Any, datatype: Datatype) -> None:
    if type(value) is not str:
        raise BadInput(f"input {shown(name)!r}: {_word(value)} is no string, as BYTES needs")


_CHECKS = {"BOOL": _check_bool, "BYTES": _check_text}


def _word(value: Any) -> str:
    """A JSON value as JSON would call it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    return shown(repr(value))
