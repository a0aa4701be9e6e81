"""Triton's extensions over gRPC, and gRPC's own health service."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.core import NotOffered, expect, extension
from conformance.target import Target

ROW = np.array([[1, 3, 2, 0]], np.float32)


def _request(target: Target, fixture: str = "tiny") -> Any:
    from conformance.rpc.client import infer_request

    return infer_request(target.model(fixture), [("x", "FP32", ROW if fixture == "tiny" else ROW[0])], True)


@extension("grpc.health", "grpc.health.v1.Health/Check says SERVING")
def health(target: Target) -> str:
    rpc = target.rpc
    import grpc

    try:
        answer = rpc.health()
    except grpc.RpcError as error:
        raise NotOffered(f"{error.code().name} {error.details()}") from None
    expect(answer == b"\x08\x01", f"status {answer!r}")
    return "SERVING"


@extension("grpc.classification", "classification as a parameter of an output")
def classification(target: Target) -> str:
    rpc = target.rpc
    if "classification" not in target.extensions():
        raise NotOffered("classification is not announced")
    from conformance.rpc.client import tensors_of

    request = _request(target)
    request.outputs.add(name="scores").parameters["classification"].int64_param = 2
    found = tensors_of(rpc.send("ModelInfer", request))["scores"].ravel().tolist()
    expect([text.split(b":")[1] for text in found] == [b"1", b"2"], f"{found}")
    return str(found)


@extension("grpc.statistics", "ModelStatistics counts what was sent")
def statistics(target: Target) -> str:
    rpc = target.rpc
    name = target.model("vector")
    rpc.send("ModelInfer", _request(target, fixture="vector"))
    before = rpc.extension("ModelStatistics", name=name).model_stats[0]
    rpc.send("ModelInfer", _request(target, fixture="vector"))
    after = rpc.extension("ModelStatistics", name=name).model_stats[0]
    more = after.inference_stats.success.count - before.inference_stats.success.count
    expect(more == 1, f"success +{more} for one request")
    return f"success {after.inference_stats.success.count}"


@extension("grpc.configuration", "ModelConfig has the model's name and its platform or backend")
def configuration(target: Target) -> str:
    found = target.rpc.extension("ModelConfig", name=target.model("tiny")).config
    expect(found.name == target.model("tiny") and (found.platform or found.backend), f"{found}")
    return f"platform {found.platform!r}, backend {found.backend!r}"


@extension("grpc.repository-index", "RepositoryIndex lists every model")
def repository_index(target: Target) -> str:
    found = target.rpc.extension("RepositoryIndex").models
    ready = {entry.name for entry in found if entry.state == "READY"}
    expect(target.model("tiny") in ready, f"{len(found)} entries without it")
    return f"{len(found)} entries"


@extension("grpc.stream", "ModelStreamInfer answers each request, a wrong one with an error and no end")
def stream(target: Target) -> str:
    wrong = _request(target)
    wrong.inputs[0].datatype = "INT32"
    good, last = _request(target), _request(target)
    good.id, last.id = "first", "last"
    found = target.rpc.stream([good, wrong, last])
    expect(len(found) == 3, f"{len(found)} answers to 3 requests")
    errors = [bool(answer.error_message) for answer in found]
    expect(errors == [False, True, False], f"errors {errors}")
    expect(found[2].infer_response.id == "last", f"id {found[2].infer_response.id!r}")
    return f"3 answers, {found[1].error_message}"
