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

JSON_TYPE = (b"content-type", b"application/json")
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


def encode(
    model_name: str, version: str, envelope: Envelope, model: Model, names: Sequence[str], arrays: list[Any]
) -> Encoded:
    """The response of one call; `arrays[i]` belongs to `names[i]`. A NaN or infinity becomes null in JSON
    (which has no such numbers) and passes unchanged in binary."""
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, array in zip(names, arrays, strict=False):
        datatype = model.output_by_name[name].datatype.name
        item: dict[str, Any] = {"name": name, "shape": array.shape, "datatype": datatype}
        binary = envelope.outputs.get(name)
        if envelope.binary_output if binary is None else binary:
            blob = _strings_to_binary(array) if datatype == "BYTES" else array.tobytes()
            blobs.append(blob)
            item["parameters"] = {"binary_data_size": len(blob)}
        elif datatype == "BYTES":
            item["data"] = [str(value) for value in array.ravel()]
        else:
            item["data"] = np.ascontiguousarray(array).reshape(-1)
        outputs.append(item)
    document: dict[str, Any] = {"model_name": model_name, "model_version": version}
    if envelope.id is not None:
        document["id"] = envelope.id
    document["outputs"] = outputs
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return Encoded(head, None)
    return Encoded(b"".join([head, *blobs]), len(head))


def _strings_to_binary(array: np.ndarray) -> bytes:
    parts: list[bytes] = []
    for value in array.ravel():
        text = str(value).encode("utf-8")
        parts.append(struct.pack("<I", len(text)))
        parts.append(text)
    return b"".join(parts)
