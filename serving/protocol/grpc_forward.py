"""A gRPC request as the REST request of another server, and that server's answer as gRPC's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson

from serving.call import ModelFailure
from serving.protocol.datatypes import BY_NAME
from serving.protocol.encode import Encoded, strings_to_binary
from serving.protocol.envelope import Envelope
from serving.protocol.errors import BadInput, bad_request, shown
from serving.protocol.grpc_tensors import from_contents
from serving.protocol.protobuf import message
from serving.values import to_bfloat16

_Response = message("ModelInferResponse")


def to_rest(request: Any, envelope: Envelope) -> tuple[bytes, int]:
    """Body and the length of its JSON: all tensors binary, and answers wished for so. Raises ServingError 400."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise bad_request(f"raw_input_contents has {len(raw)} tensors for {len(request.inputs)} inputs")
    inputs, blobs = [], []
    for position, item in enumerate(request.inputs):
        blob = raw[position] if raw else _packed(item)
        blobs.append(blob)
        inputs.append(
            {
                "name": item.name,
                "datatype": item.datatype,
                "shape": list(item.shape),
                "parameters": {"binary_data_size": len(blob)},
            }
        )
    document: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    if envelope.id is not None:
        document["id"] = envelope.id
    if envelope.outputs:
        document["outputs"] = [_wanted(name, envelope.classes.get(name)) for name in envelope.outputs]
    head = orjson.dumps(document)
    return b"".join([head, *blobs]), len(head)


def _wanted(name: str, best: int | None) -> dict[str, Any]:
    return {"name": name, "parameters": {"classification": best} if best else {"binary_data": True}}


def _packed(item: Any) -> bytes:
    datatype = BY_NAME.get(item.datatype)
    if datatype is None:
        raise BadInput(f"input {shown(item.name)!r}: datatype {shown(item.datatype)!r} is unknown")
    if len(item.shape) > 32 or any(dim < 0 for dim in item.shape):
        raise bad_request(f"input {shown(item.name)!r}: shape {shown(list(item.shape))} is none")
    array = from_contents(item.name, [math.prod(item.shape)], datatype, item.contents)
    return strings_to_binary(array) if array.dtype == object else array.tobytes()


def from_rest(answer: Encoded, envelope: Envelope) -> bytes:
    """The ModelInferResponse of a REST answer, always raw. Raises ModelFailure 502 where there is none in it."""
    try:
        made = _response(answer)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise ModelFailure(502, "the server behind this model gave no V2 answer") from None
    if envelope.id is not None:
        made.id = envelope.id
    encoded: bytes = made.SerializeToString()
    return encoded


def _response(answer: Encoded) -> Any:
    at = len(answer.body) if answer.json_size is None else answer.json_size
    document = orjson.loads(answer.body[:at])
    made = _Response(model_name=document["model_name"], model_version=document["model_version"])
    for output in document["outputs"]:
        shape, datatype = output["shape"], output["datatype"]
        made.outputs.add(name=output["name"], datatype=datatype, shape=shape)
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            blob = answer.body[at : at + size]
            at += size
            if len(blob) != size:
                raise ValueError("the body is too short")
        elif datatype == "BYTES":
            blob = strings_to_binary(np.array(output["data"], dtype=object))
        elif datatype == "BF16":
            blob = to_bfloat16(np.array(output["data"], np.float64)).tobytes()
        else:
            blob = np.array(output["data"], BY_NAME[datatype].dtype).tobytes()
        made.raw_output_contents.append(blob)
    return made
