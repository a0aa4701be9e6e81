"""The protocol over gRPC: health, metadata, inference with typed and with raw contents."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.core import NotOffered, expect, extension, required
from conformance.target import Target
from conformance.tensors import DTYPES, same, sample

ROW = np.array([[1, 3, 2, 0]], np.float32)


@required("grpc.live", "ServerLive says live")
def live(target: Target) -> str:
    expect(target.rpc.call("ServerLive").live, "live is false")
    return "live"


@required("grpc.ready", "ServerReady says ready")
def ready(target: Target) -> str:
    expect(target.rpc.call("ServerReady").ready, "ready is false")
    return "ready"


@required("grpc.model-ready", "ModelReady says ready, for a model and for one version of it")
def model_ready(target: Target) -> str:
    rpc = target.rpc
    expect(rpc.call("ModelReady", name=target.model("tiny")).ready, "tiny is not ready")
    expect(rpc.call("ModelReady", name=target.model("versions"), version="2").ready, "version 2 is not ready")
    return "tiny, and version 2 of versions"


@required("grpc.server-metadata", "ServerMetadata has the name, version and extensions that REST has")
def server_metadata(target: Target) -> str:
    found = target.rpc.call("ServerMetadata")
    body = target.get("/v2").json()
    expect(found.name and found.version, f"name {found.name!r}, version {found.version!r}")
    expect((found.name, found.version) == (body.get("name"), body.get("version")), f"REST says {body}")
    return f"{found.name} {found.version}: {', '.join(found.extensions)}"


@required("grpc.model-metadata", "ModelMetadata has platform, inputs and outputs")
def model_metadata(target: Target) -> str:
    found = target.rpc.call("ModelMetadata", name=target.model("tiny"))
    expect(found.name == target.model("tiny") and found.platform, f"name {found.name!r}, platform {found.platform!r}")
    inputs = [(t.name, t.datatype, list(t.shape)) for t in found.inputs]
    expect(inputs == [("x", "FP32", [-1, 4])], f"inputs {inputs}")
    outputs = {(t.name, t.datatype) for t in found.outputs}
    expect(outputs == {("label", "INT64"), ("scores", "FP32")}, f"outputs {outputs}")
    return f"platform {found.platform}, versions {list(found.versions)}"


@required("grpc.model-metadata.version", "ModelMetadata answers for one version, and lists all")
def version_metadata(target: Target) -> str:
    found = target.rpc.call("ModelMetadata", name=target.model("versions"), version="2")
    if not found.versions:
        raise NotOffered("no versions in the metadata")
    expect({"1", "2", "10"} <= set(found.versions), f"versions {list(found.versions)}")
    return str(list(found.versions))


def _ask(target: Target, fixture: str, *tensors: tuple[str, str, np.ndarray], raw: bool = False, **more: Any) -> Any:
    from conformance.rpc.client import infer_request

    return target.rpc.send("ModelInfer", infer_request(target.model(fixture), tensors, raw, **more))


def _tensors(response: Any) -> dict[str, np.ndarray]:
    from conformance.rpc.client import tensors_of

    return tensors_of(response)


def _datatype_checks(datatype: str) -> None:
    def round_trip(target: Target, raw: bool) -> str:
        _ = target.rpc
        array = sample(datatype)
        response = _ask(target, f"id-{datatype.lower()}", ("x", datatype, array), raw=raw)
        expect(response.outputs[0].datatype == datatype, f"datatype {response.outputs[0].datatype}")
        found = _tensors(response)["y"]
        expect(same(found, array), f"sent {array.ravel().tolist()}, got {found.ravel().tolist()}")
        return f"back as {'raw' if response.raw_output_contents else 'typed'} contents"

    level = extension if datatype == "BF16" else required
    level(f"grpc.raw.{datatype}", f"{datatype} as raw contents comes back exactly")(lambda t: round_trip(t, True))
    if datatype not in ("FP16", "BF16"):
        level(f"grpc.typed.{datatype}", f"{datatype} as typed contents comes back exactly")(
            lambda t: round_trip(t, False)
        )


for _name in DTYPES:
    _datatype_checks(_name)


@required("grpc.response", "the response has model_name, the request's id, and every output")
def response(target: Target) -> str:
    _ = target.rpc
    answer = _ask(target, "tiny", ("x", "FP32", ROW), id="42 ü")
    expect(answer.model_name == target.model("tiny"), f"model_name {answer.model_name!r}")
    expect(answer.id == "42 ü", f"id {answer.id!r}")
    found = _tensors(answer)
    expect(found["label"].tolist() == [1] and found["scores"].tolist() == [[1, 3, 2]], f"{found}")
    return f"version {answer.model_version!r}, {', '.join(found)}"


@required("grpc.two-inputs", "two inputs of different types in either order, with raw and with typed contents")
def two_inputs(target: Target) -> str:
    _ = target.rpc
    pair = [("a", "INT32", np.array([[5, 7]], np.int32)), ("b", "FP32", np.array([[1, 2]], np.float32))]
    for tensors in (pair, pair[::-1]):
        for raw in (False, True):
            found = _tensors(_ask(target, "add-sub", *tensors, raw=raw))
            expect(found["sum"].tolist() == [[6, 9]] and found["diff"].tolist() == [[4, 5]], f"{found}")
    return "4 requests"


@required("grpc.outputs.subset", "only the requested outputs are returned")
def subset(target: Target) -> str:
    _ = target.rpc
    names = list(_tensors(_ask(target, "tiny", ("x", "FP32", ROW), raw=True, outputs=["scores"])))
    expect(names == ["scores"], f"outputs {names}")
    return str(names)


@extension("grpc.outputs.order", "outputs come in the order they were requested in")
def order(target: Target) -> str:
    _ = target.rpc
    names = list(_tensors(_ask(target, "tiny", ("x", "FP32", ROW), raw=True, outputs=["scores", "label"])))
    expect(names == ["scores", "label"], f"outputs {names}")
    return str(names)


@required("grpc.version", "each version answers, and says which it is when it says any")
def versions(target: Target) -> str:
    _ = target.rpc
    for version in ("1", "2", "10"):
        answer = _ask(target, "versions", ("x", "FP32", np.zeros(1, np.float32)), model_version=version)
        found = _tensors(answer)["y"].tolist()
        expect(found == [float(version)], f"version {version} answered {found}")
        expect(answer.model_version in ("", version), f"model_version {answer.model_version!r}")
    return "1, 2 and 10"


def _parameters(target: Target, values: dict[str, Any]) -> str:
    from conformance.rpc import client, schema

    request = client.infer_request(target.model("tiny"), [("x", "FP32", ROW)], True, ["label"])
    for holder in (request, request.inputs[0], request.outputs[0]):
        for key, value in values.items():
            holder.parameters[f"some_{key}"].CopyFrom(schema.message("InferParameter")(**{key: value}))
    expect(_tensors(target.rpc.send("ModelInfer", request))["label"].tolist() == [1], "wrong label")
    return f"{', '.join(values)}"


@required("grpc.parameters", "bool, int64 and string parameters are accepted on request, input and output")
def parameters(target: Target) -> str:
    _ = target.rpc
    return _parameters(target, {"bool_param": True, "int64_param": -1, "string_param": "a"})


@extension("grpc.parameters.more", "double and uint64 parameters (in the .proto, not in the text) are accepted too")
def more_parameters(target: Target) -> str:
    _ = target.rpc
    return _parameters(target, {"double_param": 0.5, "uint64_param": 1})


@extension("grpc.zero-size", "a tensor with a dimension of 0, as raw and as typed contents")
def zero_size(target: Target) -> str:
    _ = target.rpc
    for raw in (False, True):
        found = _tensors(_ask(target, "empty", ("x", "FP32", np.zeros((0, 4), np.float32)), raw=raw))["y"]
        expect(found.shape == (0, 4), f"shape {found.shape}")
    return "shape [0,4]"


@extension("grpc.scalar", "a scalar of shape []")
def scalar(target: Target) -> str:
    _ = target.rpc
    found = _tensors(_ask(target, "scalar", ("x", "FP32", np.array(2.5, np.float32)), raw=True))["y"]
    expect(found.shape == () and float(found) == 5, f"{found}")
    return "5.0"


@extension("grpc.large", "a message of 8 MiB, beyond gRPC's own default of 4")
def large(target: Target) -> str:
    _ = target.rpc
    array = np.arange((8 << 20) // 4 - 1024, dtype=np.float32)
    found = _tensors(_ask(target, "vector", ("x", "FP32", array), raw=True))["y"]
    expect(np.array_equal(found, array), "values differ")
    return f"{array.nbytes} bytes each way"


@extension("grpc.not-finite", "NaN and infinities pass bit by bit as raw contents")
def not_finite(target: Target) -> str:
    _ = target.rpc
    array = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    found = _tensors(_ask(target, "vector", ("x", "FP32", array), raw=True))["y"]
    expect(found.tobytes() == array.tobytes(), f"{found.tolist()}")
    return str(found.tolist())
