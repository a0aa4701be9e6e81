"""The protocol over gRPC: what must be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.core import REQUIRED, expect, extension, register, required
from conformance.target import Target

ROW = np.array([[1, 3, 2, 0]], np.float32)
_Change = Callable[[Any], None]


def _request(target: Target, raw: bool = True) -> Any:
    from conformance.rpc.client import infer_request

    return infer_request(target.model("tiny"), [("x", "FP32", ROW)], raw)


def _refusal(name: str, says: str, raw: bool = True, codes: tuple[str, ...] = ()) -> Callable[[_Change], _Change]:
    def add(change: _Change) -> _Change:
        def body(target: Target) -> str:
            rpc = target.rpc
            from conformance.rpc.client import rejected

            request = _request(target, raw)
            change(request)
            evidence = rejected(rpc, "ModelInfer", request, codes)
            rpc.send("ModelInfer", _request(target))
            return evidence

        register(f"grpc.refuse.{name}", REQUIRED, f"{says}: a status of the client's fault, and serving goes on", body)
        return change

    return add


@_refusal("unknown-model", "an unknown model")
def _unknown_model(request: Any) -> None:
    request.model_name = "no-such-model"


@_refusal("unknown-version", "an unknown version")
def _unknown_version(request: Any) -> None:
    request.model_version = "987654"


@_refusal("unknown-input", "an input the model does not have")
def _unknown_input(request: Any) -> None:
    request.inputs[0].name = "z"


@_refusal("unknown-output", "a requested output the model does not have")
def _unknown_output(request: Any) -> None:
    request.outputs.add(name="no-such-output")


@_refusal("no-inputs", "no inputs")
def _no_inputs(request: Any) -> None:
    del request.inputs[:], request.raw_input_contents[:]


@_refusal("input-twice", "the same input twice")
def _twice(request: Any) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


@_refusal("datatype", "a datatype that is not the model's")
def _datatype(request: Any) -> None:
    request.inputs[0].datatype = "INT32"


@_refusal("datatype-unknown", "a datatype that does not exist")
def _datatype_unknown(request: Any) -> None:
    request.inputs[0].datatype = "FP33"


@_refusal("shape", "a shape that is not the model's")
def _shape(request: Any) -> None:
    request.inputs[0].shape[:] = [2, 2]


@_refusal("shape-negative", "a negative dimension")
def _negative(request: Any) -> None:
    request.inputs[0].shape[:] = [-1, 4]


@_refusal("raw-short", "raw contents shorter than the shape says")
def _raw_short(request: Any) -> None:
    request.raw_input_contents[0] = bytes(12)


@_refusal("raw-long", "raw contents longer than the shape says")
def _raw_long(request: Any) -> None:
    request.raw_input_contents[0] = bytes(20)


@_refusal("raw-count", "more raw contents than inputs")
def _raw_count(request: Any) -> None:
    request.raw_input_contents.append(bytes(16))


@_refusal("raw-and-typed", "raw contents beside typed contents")
def _both(request: Any) -> None:
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])


@_refusal("typed-short", "fewer typed values than the shape says", raw=False)
def _typed_short(request: Any) -> None:
    del request.inputs[0].contents.fp32_contents[-1]


@_refusal("typed-long", "more typed values than the shape says", raw=False)
def _typed_long(request: Any) -> None:
    request.inputs[0].contents.fp32_contents.append(5)


@_refusal("typed-other", "values in the field of another datatype", raw=False)
def _typed_other(request: Any) -> None:
    del request.inputs[0].contents.fp32_contents[:]
    request.inputs[0].contents.int_contents.extend([1, 2, 3, 4])


@_refusal("typed-none", "an input without contents of any kind", raw=False)
def _typed_none(request: Any) -> None:
    request.inputs[0].ClearField("contents")


@extension("grpc.status", "an unknown model is NOT_FOUND, a wrong tensor is INVALID_ARGUMENT")
def status(target: Target) -> str:
    rpc = target.rpc
    from conformance.rpc.client import rejected

    unknown, wrong = _request(target), _request(target)
    unknown.model_name = "no-such-model"
    wrong.inputs[0].datatype = "INT32"
    first = rejected(rpc, "ModelInfer", unknown, ("NOT_FOUND",))
    return f"{first}; {rejected(rpc, 'ModelInfer', wrong, ('INVALID_ARGUMENT',))}"


@extension("grpc.int8-range", "a typed value that does not fit INT8 is refused and not wrapped")
def int8_range(target: Target) -> str:
    rpc = target.rpc
    from conformance.rpc.client import infer_request, rejected

    request = infer_request(target.model("id-int8"), [("x", "INT8", np.array([[300]], np.int64))], raw=False)
    return rejected(rpc, "ModelInfer", request)


@required("grpc.unknown.metadata", "metadata of an unknown model or version is an error")
def unknown_metadata(target: Target) -> str:
    rpc = target.rpc
    from conformance.rpc import schema
    from conformance.rpc.client import rejected

    make = schema.message("ModelMetadataRequest")
    first = rejected(rpc, "ModelMetadata", make(name="no-such-model"))
    rejected(rpc, "ModelMetadata", make(name=target.model("versions"), version="987654"))
    return first


@required("grpc.unknown.ready", "an unknown model is not ready: an error, or ready false")
def unknown_ready(target: Target) -> str:
    rpc = target.rpc
    import grpc

    try:
        answer = rpc.call("ModelReady", name="no-such-model")
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"
    expect(not answer.ready, "ready")
    return "ready false"


@required("grpc.unknown.method", "a method that the service does not have is UNIMPLEMENTED")
def unknown_method(target: Target) -> str:
    rpc = target.rpc
    import grpc

    try:
        rpc.unknown()
    except grpc.RpcError as error:
        expect(error.code().name == "UNIMPLEMENTED", f"{error.code().name}")
    else:
        expect(False, "answered")
    return "UNIMPLEMENTED"
