"""A gRPC client of the service, and tensors to and from its messages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import grpc
import numpy as np

from conformance.core import Failed, NotOffered, expect
from conformance.rpc import schema
from conformance.tensors import DTYPES, pack, unpack

# The field of InferTensorContents that carries a datatype; FP16 and BF16 have none.
FIELDS = {
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
_SECONDS = 20.0
_LIMIT = 256 << 20


class Rpc:
    """A channel to the server."""

    def __init__(self, address: str) -> None:
        limits = [("grpc.max_receive_message_length", _LIMIT), ("grpc.max_send_message_length", _LIMIT)]
        self._channel = grpc.insecure_channel(address, options=[*limits, ("grpc.enable_http_proxy", 0)])
        self._calls: dict[str, Any] = {}

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _method(self, name: str) -> Any:
        if name not in self._calls:
            request, response, streamed, _ = schema.METHODS[name]
            make = self._channel.stream_stream if streamed else self._channel.unary_unary
            self._calls[name] = make(
                f"/{schema.SERVICE}/{name}",
                request_serializer=schema.message(request).SerializeToString,
                response_deserializer=schema.message(response).FromString,
            )
        return self._calls[name]

    def call(self, method: str, /, **fields: Any) -> Any:
        """Call a method with its request's fields. Raises grpc.RpcError."""
        return self.send(method, schema.message(schema.METHODS[method][0])(**fields))

    def send(self, name: str, request: Any) -> Any:
        """Call a method with its request. Raises grpc.RpcError."""
        return self._method(name)(request, timeout=_SECONDS, wait_for_ready=True)

    def extension(self, name: str, /, **fields: Any) -> Any:
        """`call`, where UNIMPLEMENTED, or a refusal of this caller, raises NotOffered."""
        try:
            return self.call(name, **fields)
        except grpc.RpcError as error:
            code = error.code().name
            if code in ("UNIMPLEMENTED", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNAVAILABLE"):
                raise NotOffered(f"{name} is {code}: {error.details()}") from None
            raise

    def stream(self, requests: Iterable[Any]) -> list[Any]:
        """All answers to a stream of inference requests. Raises grpc.RpcError, and NotOffered without streams."""
        try:
            return list(self._method("ModelStreamInfer")(iter(requests), timeout=_SECONDS, wait_for_ready=True))
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                raise NotOffered("ModelStreamInfer is UNIMPLEMENTED") from None
            raise

    def unknown(self) -> Any:
        """Call a method that the service does not have. Raises grpc.RpcError."""
        call = self._channel.unary_unary(f"/{schema.SERVICE}/NoSuchMethod")
        return call(b"", timeout=_SECONDS)

    def health(self) -> bytes:
        """The answer of grpc.health.v1.Health/Check for the whole server. Raises grpc.RpcError."""
        call = self._channel.unary_unary("/grpc.health.v1.Health/Check")
        return bytes(call(b"", timeout=_SECONDS))


def infer_request(
    model: str, tensors: Sequence[tuple[str, str, np.ndarray]], raw: bool, outputs: Sequence[str] = (), **more: Any
) -> Any:
    """A ModelInferRequest of (name, datatype, array), with raw or typed contents."""
    request = schema.message("ModelInferRequest")(model_name=model, **more)
    for name, datatype, array in tensors:
        tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            request.raw_input_contents.append(pack(datatype, array))
        else:
            values = array.ravel().tolist()
            if datatype == "BYTES":
                values = [value if isinstance(value, bytes) else str(value).encode() for value in values]
            getattr(tensor.contents, FIELDS[datatype]).extend(values)
    for name in outputs:
        request.outputs.add(name=name)
    return request


def tensors_of(response: Any) -> dict[str, np.ndarray]:
    """Output tensors of a ModelInferResponse by name, from raw or typed contents. Raises Failed."""
    raw = response.raw_output_contents
    expect(len(raw) in (0, len(response.outputs)), f"{len(raw)} raw contents for {len(response.outputs)} outputs")
    found = {}
    for place, output in enumerate(response.outputs):
        shape = list(output.shape)
        if raw:
            expect(not output.contents.ByteSize(), f"{output.name} has contents beside raw contents")
            found[output.name] = unpack(output.datatype, shape, raw[place])
            continue
        values = list(getattr(output.contents, FIELDS[output.datatype]))
        expect(len(values) == math.prod(shape), f"{output.name}: {len(values)} values for shape {shape}")
        array = np.empty(len(values), DTYPES[output.datatype])
        array[:] = values
        found[output.name] = array.reshape(shape)
    return found


def rejected(rpc: Rpc, name: str, request: Any, codes: Sequence[str] = ()) -> str:
    """Evidence that a call ends with one of the status codes (any of a client's fault, without `codes`)."""
    allowed = codes or ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED")
    try:
        answer = rpc.send(name, request)
    except grpc.RpcError as error:
        code = error.code().name
        expect(code in allowed, f"{code}, not {' or '.join(allowed)}: {error.details()}")
        return f"{code} {error.details()}"
    raise Failed(f"accepted: {str(answer)[:100]}")
