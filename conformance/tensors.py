"""V2 datatypes beside numpy's, tensors as JSON and as binary data, and samples of each datatype."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

# BF16 has no numpy type: its bits travel as UINT16, as they do on the wire.
DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
    "BF16": np.uint16,
}
# 1, -2, 0.5, 3.140625, the largest number, the smallest normal one.
_BF16 = [0x3F80, 0xC000, 0x3F00, 0x4049, 0x7F7F, 0x0080]
_TEXTS = ["", "a", "Grüße, 世界", 'quote " and \\ and /', "line\nfeed\ttab", "\U0001f680"]


def sample(datatype: str) -> np.ndarray:
    """A [2,3] tensor of a datatype with its extremes in it."""
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if datatype == "BYTES":
        return np.array(_TEXTS, dtype=object).reshape(2, 3)
    if datatype == "BF16":
        return np.array(_BF16, np.uint16).reshape(2, 3)
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([[limits.min, limits.max, 0], [1, 2, limits.max - 1]], dtype)
    limits_of_floats = np.finfo(dtype)
    third = dtype.type(1) / dtype.type(3)
    return np.array([[0, -1.5, third], [limits_of_floats.max, limits_of_floats.min, limits_of_floats.tiny]], dtype)


def as_input(name: str, datatype: str, array: np.ndarray, nested: bool = False) -> dict[str, Any]:
    """A request's input with JSON data, flat unless `nested`."""
    data = array.tolist() if nested else array.ravel().tolist()
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": data}


def fp32(name: str, values: Any) -> dict[str, Any]:
    """An FP32 input of the values' shape."""
    return as_input(name, "FP32", np.array(values, np.float32))


def pack(datatype: str, array: np.ndarray) -> bytes:
    """Little-endian bytes of a tensor; a BYTES element is its length and its bytes."""
    if datatype != "BYTES":
        return np.ascontiguousarray(array, np.dtype(DTYPES[datatype]).newbyteorder("<")).tobytes()
    parts = []
    for value in array.ravel():
        raw = value if isinstance(value, bytes) else str(value).encode()
        parts += [struct.pack("<I", len(raw)), raw]
    return b"".join(parts)


def unpack(datatype: str, shape: Sequence[int], data: bytes) -> np.ndarray:
    """The tensor of `pack`; BYTES as an object array of bytes. Raises ValueError when the size is off."""
    if datatype != "BYTES":
        return np.frombuffer(data, np.dtype(DTYPES[datatype]).newbyteorder("<")).reshape(shape)
    values, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise ValueError("binary BYTES end inside a length")
        (size,) = struct.unpack_from("<I", data, at)
        at += 4 + size
        if at > len(data):
            raise ValueError("binary BYTES end inside an element")
        values.append(data[at - size : at])
    if len(values) != math.prod(shape):
        raise ValueError(f"{len(values)} elements for shape {list(shape)}")
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def from_json(item: dict[str, Any]) -> np.ndarray:
    """The tensor of a response's output with JSON data, flat or nested. Raises ValueError."""
    datatype, shape = item["datatype"], item["shape"]
    flat = _flat(item["data"])
    if len(flat) != math.prod(shape):
        raise ValueError(f"{len(flat)} values for shape {shape}")
    array = np.empty(len(flat), DTYPES[datatype])
    array[:] = flat
    return array.reshape(shape)


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    return [value for item in data for value in (_flat(item) if isinstance(item, list) else [item])]


def same(left: np.ndarray, right: np.ndarray) -> bool:
    """Equal in shape and in every element; text equals its UTF-8 bytes, NaN equals NaN."""
    if left.shape != right.shape:
        return False
    if left.dtype == object or right.dtype == object:
        return [_raw(v) for v in left.ravel()] == [_raw(v) for v in right.ravel()]
    return bool(np.array_equal(left, right, equal_nan=left.dtype.kind == "f"))


def _raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
