"""A plain gRPC client of the tests: messages as they are, nothing remembered, nothing hidden."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np

from serving.protocol.protobuf import SERVICE, message, methods

ModelInferRequest = message("ModelInferRequest")
CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


class Client:
    """One connection of its own."""

    def __init__(self, address: str) -> None:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
        ]
        self.channel = grpc.insecure_channel(address, options=options)
        self._methods = {
            name: self.channel.unary_unary(f"/{SERVICE}/{name}", taken.SerializeToString, given.FromString)
            for name, (taken, given) in methods().items()
            if name != "ModelStreamInfer"
        }
        self._stream = self.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer", ModelInferRequest.SerializeToString,
            message("ModelStreamInferResponse").FromString,
        )  # fmt: skip

    def call(self, method: str, metadata: tuple = (), timeout: float = 20, **fields: Any) -> Any:
        return self._methods[method](message(f"{method}Request")(**fields), timeout=timeout, metadata=metadata)

    def infer(self, request: Any, metadata: tuple = (), timeout: float = 20, **more: Any) -> Any:
        return self._methods["ModelInfer"](request, timeout=timeout, metadata=metadata, **more)

    def start(self, request: Any, metadata: tuple = (), timeout: float = 20) -> Any:
        """A call under way."""
        return self._methods["ModelInfer"].future(request, timeout=timeout, metadata=metadata)

    def told(self, request: Any, metadata: tuple = ()) -> dict[str, str]:
        """An inference's trailing metadata."""
        _, call = self._methods["ModelInfer"].with_call(request, timeout=20, metadata=metadata)
        return dict(call.trailing_metadata())

    def stream(self, requests: Any, metadata: tuple = (), timeout: float = 20) -> Any:
        return self._stream(requests, timeout=timeout, metadata=metadata)

    def refused(self, request: Any, metadata: tuple = (), timeout: float = 20) -> tuple[str, str]:
        """Status and text of an inference that is refused."""
        try:
            self.infer(request, metadata, timeout)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        raise AssertionError("it was answered")

    def close(self) -> None:
        self.channel.close()


def request(model: str, *tensors: tuple[str, str, np.ndarray], raw: bool = True, **fields: Any) -> Any:
    """A request with tensors of (name, datatype, array)."""
    made = ModelInferRequest(model_name=model, **fields)
    for name, datatype, array in tensors:
        tensor = made.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            made.raw_input_contents.append(packed(array))
        elif array.dtype == object:
            tensor.contents.bytes_contents.extend(value.encode() for value in array.ravel())
        else:
            getattr(tensor.contents, CONTENTS[datatype]).extend(array.ravel().tolist())
    return made


def packed(array: np.ndarray) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    texts = [value.encode() for value in array.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def rows(model: str = "tiny", count: int = 1, raw: bool = True, **fields: Any) -> Any:
    """An FP32 [count,4] input named x."""
    return request(model, ("x", "FP32", np.full((count, 4), 0.5, np.float32)), raw=raw, **fields)


def typed(model: str, datatype: str, shape: list[int], name: str = "x", **contents: list) -> object:
    made = message("ModelInferRequest")(model_name=model)
    made.inputs.add(name=name, datatype=datatype, shape=shape, contents=contents)
    return made
