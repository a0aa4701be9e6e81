"""Tensors of the protocol to and from what ONNX Runtime takes and gives.

Most models have plain tensors only and need none of this. The others, in the protocol's terms:
  sequence of tensors     one tensor with a new first axis; its elements must have one shape
  sequence of maps        (a classifier exported with its ZipMap) BYTES [N], each element the map as JSON
  optional tensor         an input that may be left out
  BF16                    the raw 16 bits, as numpy has no such type
"""

from __future__ import annotations

import ctypes
import re
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson

from serving.protocol.datatypes import BY_NAME, Datatype, of_ort
from serving.protocol.errors import ServingError

PLAIN, SEQUENCE, MAPS = "tensor", "sequence", "maps"
_SEQUENCE = re.compile(r"seq\((tensor\(\w+\))\)")
_MAPS = re.compile(r"seq\(map\(.*\)\)")
_OPTIONAL = re.compile(r"optional\((.*)\)")
_BFLOAT16 = 16  # the element type's number in ONNX


def classify(type_name: str) -> tuple[Datatype, str, bool] | None:
    """(datatype, kind, optional) of an ONNX Runtime type; None for one the protocol cannot carry."""
    optional = _OPTIONAL.fullmatch(type_name)
    if optional:
        type_name = optional.group(1)
    sequence = _SEQUENCE.fullmatch(type_name)
    if sequence:
        inner = of_ort(sequence.group(1))
        return (inner, SEQUENCE, bool(optional)) if inner is not None and inner.name != "BF16" else None
    if _MAPS.fullmatch(type_name):
        return BY_NAME["BYTES"], MAPS, bool(optional)
    datatype = of_ort(type_name)
    return None if datatype is None else (datatype, PLAIN, bool(optional))


def given(array: np.ndarray, kind: str) -> Any:
    """An input as ONNX Runtime takes it."""
    return list(array) if kind == SEQUENCE else array


def taken(value: Any, kind: str, datatype: Datatype, name: str) -> np.ndarray:
    """An output as the protocol carries it. Raises ServingError when it cannot."""
    if kind == MAPS:
        # Keys of a map may be numbers; in JSON they are text.
        texts = [orjson.dumps(row, option=orjson.OPT_NON_STR_KEYS).decode() for row in value]
        return np.array(texts, dtype=object).reshape(len(texts))
    if kind == SEQUENCE:
        if not value:
            return np.empty((0,), datatype.dtype)
        if len({item.shape for item in value}) > 1:
            raise ServingError(500, f"output {name!r} is a sequence whose elements differ in shape")
        return np.stack([np.asarray(item, datatype.dtype) for item in value])
    if value is None:  # an optional output without a value
        return np.empty((0,), datatype.dtype)
    return np.asarray(value)


def run_with_bfloat16(
    session: ort.InferenceSession, names: list[str], feeds: dict[str, Any], halves: frozenset[str]
) -> list[Any]:
    """Run a model that has BF16 tensors; those named in `halves` are raw bits in and out."""
    values = {
        name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array), _BFLOAT16)
        if name in halves
        else ort.OrtValue.ortvalue_from_numpy(array)
        for name, array in feeds.items()
    }
    results = session.run_with_ort_values(names, values)
    return [_bits(value) if name in halves else value.numpy() for name, value in zip(names, results, strict=True)]


def _bits(value: ort.OrtValue) -> np.ndarray:
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    if not count:
        return np.empty(shape, np.uint16)
    memory = (ctypes.c_uint16 * count).from_address(value.data_ptr())
    return np.ctypeslib.as_array(memory).reshape(shape).copy()


def to_bfloat16(wide: np.ndarray) -> np.ndarray:
    """The nearest BF16 of each number, ties to even, as raw bits (the usual rounding of the upper half of an
    FP32). Numbers beyond its range become infinite."""
    bits = wide.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """FP32 of raw BF16 bits; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
