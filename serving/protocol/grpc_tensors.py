"""Tensors of gRPC's messages to numpy arrays and back, typed or raw, as strictly as over REST."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.model import Model, Tensor
from serving.protocol.datatypes import BY_NAME, Datatype
from serving.protocol.encode import best_classes, strings_to_binary
from serving.protocol.envelope import MAX_VALUES, Envelope
from serving.protocol.errors import BadInput, ServingError, bad_request, shown
from serving.protocol.protobuf import message
from serving.protocol.tensors import check_shape, from_binary

# Where the typed values of a datatype are; those without are raw only.
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_FIELDS = tuple(dict.fromkeys(CONTENTS.values()))
# Parsed, what is not raw may take eight times its bytes: beyond this a tensor has to come raw.
MAX_TYPED = 4 * MAX_VALUES
# A request has a handful of fields for each tensor; no model has so many.
_MAX_FIELDS = 16384
_NAME, _ID, _RAW = 1, 3, 7

_Response = message("ModelInferResponse")
_Streamed = message("ModelStreamInferResponse")


def survey(body: bytes) -> tuple[str, str]:
    """The model's name and the request's id in a large request that is not parsed yet, after a look at whether
    parsing it is safe. Raises ServingError (400, 413)."""
    at, typed, size = 0, 0, len(body)
    found = {_NAME: b"", _ID: b""}
    for _ in range(_MAX_FIELDS):
        if at >= size:
            break
        key, at = _varint(body, at)
        if key & 7 == 2:
            length, at = _varint(body, at)
            if key >> 3 in found:
                found[key >> 3] = body[at : at + length]
            elif key >> 3 != _RAW:
                typed += length
            at += length
        elif key & 7 == 0:
            _, at = _varint(body, at)
        else:
            at += {1: 8, 5: 4}.get(key & 7, size + 1)
    if at != size:
        raise bad_request("the message is not a valid ModelInferRequest, or has too many fields")
    if typed > MAX_TYPED:
        raise ServingError(413, f"typed contents of more than {MAX_TYPED} bytes; send them as raw_input_contents")
    return found[_NAME].decode("utf-8", "replace"), found[_ID].decode("utf-8", "replace")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for step in range(10):
        if at >= len(body):
            break
        byte = body[at]
        at += 1
        value |= (byte & 127) << 7 * step
        if byte < 128:
            return value, at
    return value, len(body) + 1


def envelope_of(request: Any) -> Envelope:
    """What a request says beside its inputs. Raises ServingError 400."""
    if len(request.id) > 1024:
        raise bad_request("id must have at most 1024 characters")
    outputs: dict[str, bool | None] = {}
    classes: dict[str, int] = {}
    for item in request.outputs:
        name = item.name
        if name in outputs:
            raise bad_request(f"output {shown(name)!r} is requested twice")
        outputs[name] = None
        if not item.parameters:
            continue
        _no_shared_memory(item.parameters, f"output {shown(name)!r}")
        if "classification" in item.parameters:
            best = item.parameters["classification"].int64_param
            if best < 0:
                raise bad_request(f"output {shown(name)!r}: classification must be a whole number")
            if best:
                classes[name] = best
    return Envelope(request.id or None, [], outputs, classes=classes)


def _no_shared_memory(parameters: Any, what: str) -> None:
    if "shared_memory_region" in parameters:
        raise bad_request(f"{what}: shared memory is not offered; send the tensor in the request")


def feeds_of(model: Model, request: Any) -> dict[str, np.ndarray]:
    """Arrays by input name, as `build_feeds` makes them of a REST request. Raises ServingError 400."""
    inputs, raw = request.inputs, request.raw_input_contents
    if raw and len(raw) != len(inputs):
        raise bad_request(f"raw_input_contents has {len(raw)} tensors for {len(inputs)} inputs")
    feeds: dict[str, np.ndarray] = {}
    for position, item in enumerate(inputs):
        name = item.name
        tensor = model.input_by_name.get(name)
        if tensor is None:
            raise BadInput(f"the model has no input {shown(name)!r}")
        if name in feeds:
            raise bad_request(f"input {shown(name)!r} is given twice")
        if item.parameters:
            _no_shared_memory(item.parameters, f"input {shown(name)!r}")
        shape = _shape(item, tensor)
        if not raw:
            feeds[name] = from_contents(name, shape, tensor.datatype, item.contents)
        elif item.HasField("contents"):
            raise bad_request(f"input {shown(name)!r} has contents beside the request's raw_input_contents")
        else:
            feeds[name] = from_binary(name, shape, tensor.datatype, memoryview(raw[position]))
    if len(feeds) != len(model.inputs):
        missing = next((t.name for t in model.inputs if t.name not in feeds and not t.optional), None)
        if missing is not None:
            raise BadInput(f"input {shown(missing)!r} is missing")
    return feeds


def _shape(item: Any, tensor: Tensor) -> list[int]:
    what = f"input {shown(tensor.name)!r}"
    if item.datatype != tensor.datatype.name:
        if item.datatype not in BY_NAME:
            raise BadInput(f"{what}: datatype {shown(item.datatype)!r} is unknown")
        raise BadInput(f"{what}: datatype {item.datatype} does not fit the model's {tensor.datatype.name}")
    if len(item.shape) > 32:
        raise bad_request(f"{what}: shape has more than 32 dimensions")
    shape = list(item.shape)
    for dim in shape:
        if dim < 0:
            raise bad_request(f"{what}: dimension {dim} of its shape is negative")
    check_shape(tensor.name, shape, tensor.shape)
    return shape


def from_contents(name: str, shape: list[int], datatype: Datatype, contents: Any) -> np.ndarray:
    """A tensor from its typed values, each of them in the range of its datatype. Raises BadInput."""
    what = f"input {shown(name)!r}"
    field = CONTENTS.get(datatype.name)
    if field is None:
        raise BadInput(f"{what}: {datatype.name} has no typed contents; send it in raw_input_contents")
    for other in _FIELDS:
        if other != field and getattr(contents, other):
            raise BadInput(f"{what}: its {datatype.name} values belong in {field}, not in {other}")
    values = getattr(contents, field)
    count = math.prod(shape)
    if len(values) != count:
        raise BadInput(f"{what}: shape {shown(shape)} needs {shown(count)} values, {len(values)} were given")
    if datatype.name == "BYTES":
        try:
            texts = [str(value, "utf-8") for value in values]
        except UnicodeDecodeError:
            raise BadInput(f"{what}: a BYTES element is not valid UTF-8") from None
        array = np.empty(count, dtype=object)
        array[:] = texts
        return array.reshape(shape)
    if datatype.size < 4 and datatype.low is not None and datatype.high is not None and count:
        wide = np.fromiter(values, np.int64, count)
        low, high = int(wide.min()), int(wide.max())
        if low < datatype.low or high > datatype.high:
            wrong = low if low < datatype.low else high
            raise BadInput(f"{what}: {wrong} does not fit {datatype.name}")
        return wide.astype(datatype.dtype).reshape(shape)
    return np.fromiter(values, datatype.dtype, count).reshape(shape)


def answer(
    name: str, version: str, envelope: Envelope, model: Model, names: Sequence[str], arrays: list[Any], raw: bool
) -> Any:
    """The response of one call; `arrays[i]` belongs to `names[i]`. Raises BadInput.

    A raw request is answered raw, a typed one in typed contents, unless an output has none (FP16, BF16): raw and
    typed cannot be mixed, so all of them are raw then. Clients of Triton and KServe read either."""
    made = _Response(model_name=name, model_version=version)
    if envelope.id is not None:
        made.id = envelope.id
    if envelope.classes:
        arrays = [
            best_classes(array, envelope.classes[output], output) if output in envelope.classes else array
            for output, array in zip(names, arrays, strict=True)
        ]
    kinds = ["BYTES" if a.dtype == object else model.output_by_name[n].datatype.name for n, a in zip(names, arrays)]  # noqa: B905
    raw = raw or any(kind not in CONTENTS for kind in kinds)
    for output, array, kind in zip(names, arrays, kinds, strict=True):
        tensor = made.outputs.add(name=output, datatype=kind, shape=array.shape)
        if raw:
            made.raw_output_contents.append(strings_to_binary(array) if kind == "BYTES" else array.tobytes())
        elif kind == "BYTES":
            tensor.contents.bytes_contents.extend([str(value).encode() for value in array.ravel()])
        else:
            getattr(tensor.contents, CONTENTS[kind]).extend(array.ravel().tolist())
    return made


# Appended to a ModelInferResponse, as messages may be.
_FINAL = _Response(parameters={"triton_final_response": {"bool_param": True}}).SerializeToString()


def stream_answer(response: bytes | None, error: ServingError | None, request_id: str, final: bool) -> bytes:
    """A ModelStreamInferResponse around a serialized ModelInferResponse, or a refusal with the request's id."""
    if error is not None:
        made: bytes = _Streamed(error_message=error.text, infer_response={"id": request_id}).SerializeToString()
        return made
    inner = (response or b"") + (_FINAL if final else b"")
    size, length = bytearray(), len(inner)
    while length >= 128:
        size.append(length & 127 | 128)
        length >>= 7
    size.append(length)
    return b"\x12%b%b" % (bytes(size), inner)  # field 2
