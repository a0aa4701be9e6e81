"""V2 datatypes beside numpy's and ONNX Runtime's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Datatype:
    """One V2 datatype. `buffer` is the simdjson buffer kind its JSON numbers are read through
    ('d' double, 'i' int64, 'u' uint64), or None where values are read one by one."""

    name: str
    dtype: np.dtype
    buffer: str | None
    low: int | None = None
    high: int | None = None

    @property
    def size(self) -> int:
        """Bytes of one element; 0 for BYTES, whose elements have their own length."""
        return 0 if self.name == "BYTES" else self.dtype.itemsize


# What simdjson's buffers hold, by kind.
WIDE = {"d": np.dtype(np.float64), "i": np.dtype(np.int64), "u": np.dtype(np.uint64)}


def _integer(name: str, dtype: type, buffer: str = "i") -> Datatype:
    info = np.iinfo(dtype)
    return Datatype(name, np.dtype(dtype), buffer, int(info.min), int(info.max))


_ALL = (
    Datatype("BOOL", np.dtype(np.bool_), None),
    _integer("INT8", np.int8),
    _integer("INT16", np.int16),
    _integer("INT32", np.int32),
    _integer("INT64", np.int64),
    _integer("UINT8", np.uint8),
    _integer("UINT16", np.uint16),
    _integer("UINT32", np.uint32),
    _integer("UINT64", np.uint64, "u"),
    # Raw bits: numpy has no such type.
    Datatype("BF16", np.dtype(np.uint16), "d"),
    Datatype("FP16", np.dtype(np.float16), "d"),
    Datatype("FP32", np.dtype(np.float32), "d"),
    Datatype("FP64", np.dtype(np.float64), "d"),
    Datatype("BYTES", np.dtype(object), None),
)
BY_NAME: dict[str, Datatype] = {datatype.name: datatype for datatype in _ALL}

_ORT = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(bfloat16)": "BF16",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


def of_ort(type_name: str) -> Datatype | None:
    """The V2 datatype of an ONNX Runtime type such as `tensor(float)`; None when V2 here has no such one."""
    name = _ORT.get(type_name)
    return BY_NAME[name] if name else None
