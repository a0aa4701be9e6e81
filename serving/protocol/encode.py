"""Outputs of a model to a V2 response: JSON, or JSON followed by binary tensors."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from serving.model import Model
from serving.protocol.envelope import Envelope
from serving.protocol.errors import BadInput, shown
from serving.values import from_bfloat16

JSON_TYPE = (b"content-type", b"application/json")
# Shapes of outputs remembered for a model.
_REMEMBERED = 256
BINARY_TYPE = (b"content-type", b"application/octet-stream")


@dataclass(slots=True)
class Encoded:
    """Body of a response; `json_size` is the length of its JSON part, None when it is JSON alone."""

    body: bytes
    json_size: int | None


def wanted_outputs(model: Model, envelope: Envelope) -> list[str]:
    """Names of the outputs to answer with, in the order asked. Raises BadInput naming an unknown one."""
    if not envelope.outputs:
        return model.output_names
    for name in envelope.outputs:
        if name not in model.output_by_name:
            raise BadInput(f"the model has no output {shown(name)!r}")
    return list(envelope.outputs)


def opening(model_name: str, version: str) -> bytes:
    """How the JSON of every response of a deployment begins."""
    return b'{"model_name":%b,"model_version":%b,' % (orjson.dumps(model_name), orjson.dumps(version))


def encode(start: bytes, envelope: Envelope, model: Model, names: Sequence[str], arrays: list[Any]) -> Encoded:
    """The response of one call; `start` is the deployment's `opening`, `arrays[i]` belongs to `names[i]`. A NaN
    or infinity becomes null in JSON (which has no such numbers) and passes unchanged in binary."""
    parts = [start]
    if envelope.id is not None:
        parts += (b'"id":', orjson.dumps(envelope.id), b",")
    parts.append(b'"outputs":[')
    blobs: list[bytes] = []
    between = b""
    for name, array in zip(names, arrays, strict=False):
        best = envelope.classes.get(name) if envelope.classes else None
        if best is not None:
            array = best_classes(array, best, name)
        strings = array.dtype == object
        described = model.openings.get((name, array.shape, strings))
        if described is None:
            described = _described(model, name, array.shape, strings)
        parts += (between, described)
        between = b","
        binary = envelope.outputs.get(name)
        if envelope.binary_output if binary is None else binary:
            blob = strings_to_binary(array) if strings else array.tobytes()
            blobs.append(blob)
            parts.append(b'"parameters":{"binary_data_size":%d}}' % len(blob))
        else:
            if name in model.halves:
                array = from_bfloat16(array)
            parts += (b'"data":', _strings(array) if strings else _numbers(array), b"}")
    parts.append(b"]}")
    head = b"".join(parts)
    if not blobs:
        return Encoded(head, None)
    return Encoded(b"".join([head, *blobs]), len(head))


def _numbers(array: np.ndarray) -> bytes:
    if array.ndim != 1 or not array.flags.c_contiguous:
        array = np.ascontiguousarray(array).reshape(-1)
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)


def _strings(array: np.ndarray) -> bytes:
    return orjson.dumps([str(value) for value in array.ravel()])


def _described(model: Model, name: str, shape: tuple[int, ...], strings: bool) -> bytes:
    """Name, shape and datatype of an output as JSON, remembered for the shapes that a model gives."""
    datatype = "BYTES" if strings else model.output_by_name[name].datatype.name
    described = orjson.dumps({"name": name, "shape": shape, "datatype": datatype})[:-1] + b","
    if len(model.openings) >= _REMEMBERED:
        model.openings.clear()
    model.openings[name, shape, strings] = described
    return described


def best_classes(array: np.ndarray, count: int, name: str) -> np.ndarray:
    """The classification extension: for each row the `count` greatest values as "value:index" strings, greatest
    first, shape [..., count] (fewer where there are fewer). Raises BadInput for an output without numbers."""
    if array.dtype == object or not array.ndim:
        raise BadInput(f"output {shown(name)!r} cannot be given as classes: it has no row of numbers")
    count = min(count, array.shape[-1])
    rows = array.reshape(-1, array.shape[-1]) if array.size else np.empty((0, array.shape[-1]))
    # Stable, so that of equal values the first class comes first.
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    texts = [[f"{row[index]:f}:{index}" for index in best] for row, best in zip(rows, order, strict=True)]
    return np.array(texts, dtype=object).reshape(*array.shape[:-1], count)


def strings_to_binary(array: np.ndarray) -> bytes:
    """BYTES elements as bytes, each behind its length."""
    parts: list[bytes] = []
    for value in array.ravel():
        text = str(value).encode("utf-8")
        parts.append(struct.pack("<I", len(text)))
        parts.append(text)
    return b"".join(parts)
