"""Inference over gRPC: from a message's bytes to the bytes of its answer. Knows nothing of the transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from serving.call import Call
from serving.dataplane import POOL_BODY, Dataplane
from serving.protocol.encode import wanted_outputs
from serving.protocol.envelope import Envelope
from serving.protocol.errors import bad_request, crowded
from serving.protocol.grpc_forward import from_rest, to_rest
from serving.protocol.grpc_tensors import answer, envelope_of, feeds_of, survey
from serving.protocol.protobuf import message

if TYPE_CHECKING:
    from serving.upstream import Upstream

Metadata = Mapping[str, str | bytes]
_Request = message("ModelInferRequest")


def authorization(metadata: Metadata) -> bytes | None:
    """The caller's word on who it is, as REST has it."""
    given = metadata.get("authorization")
    return given.encode() if isinstance(given, str) else given


class GrpcCall(Call):
    """A call with a ModelInferRequest; `answer` becomes the bytes of a ModelInferResponse."""

    request: Any = None
    envelope: Envelope | None = None
    model_name = ""
    client_id = ""  # the id in the message, which goes back with a refusal
    wants_final = False  # the caller of a stream looks for a mark on the last answer to a request
    version: str | None = None  # told by the message, when it is read
    raw = True
    forwarded = (b"", 0)  # the request for another server: body, and the length of its JSON

    def __init__(self, metadata: Metadata, body: bytes, finish: Callable[[Any], None]) -> None:
        self.metadata = metadata
        self.body = body
        self.finish = finish

    def admit(self, dataplane: Dataplane) -> None:
        """Find the endpoint and check that this caller may use it. Raises ServingError."""
        body = self.body
        if len(body) < POOL_BODY:
            self._parse()
        else:
            # Reading all of it is the pool's work; who may not call is told so before.
            self.model_name, self.client_id = survey(body)
            runtime = dataplane.runtime
            if runtime.body_bytes + len(body) > runtime.body_budget:
                raise crowded()
        metadata = self.metadata
        endpoint = self.endpoint = dataplane.admit(self.model_name, authorization(metadata))
        self.key = metadata.get(endpoint.sticky_header.decode()) or metadata.get("x-request-id")

    def _parse(self) -> None:
        try:
            request = self.request = _Request.FromString(self.body)
        except DecodeError:
            raise bad_request("the message is not a valid ModelInferRequest") from None
        self.model_name, self.client_id = request.model_name, request.id
        if request.parameters:
            self.wants_final = request.parameters["triton_enable_empty_final_response"].bool_param

    def size(self) -> int:
        return len(self.body)

    def read(self) -> None:
        if self.request is None:
            self._parse()
            if self.model_name != self.endpoint.name:
                raise bad_request("the message names two models")
        request = self.request
        self.body = b""
        self.version = request.model_version or None
        envelope = self.envelope = envelope_of(request)
        model = self.route(envelope.id).model
        if model is None:
            self.forwarded = to_rest(request, envelope)
            self.request = None
            return
        self.feeds = feeds_of(model, request)
        self.names = wanted_outputs(model, envelope)
        self.raw = bool(request.raw_input_contents) or not request.inputs
        self.request = None

    def encode(self, arrays: list[Any]) -> bytes:
        deployment, envelope = self.deployment, self.envelope
        assert deployment is not None and envelope is not None
        made = answer(self.endpoint.name, deployment.version, envelope, self.model(), self.names, arrays, self.raw)
        encoded: bytes = made.SerializeToString()
        return encoded

    async def forward(self, upstream: Upstream) -> bytes:
        deployment, envelope = self.deployment, self.envelope
        assert deployment is not None and envelope is not None
        body, json_size = self.forwarded
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(json_size)}
        given = self.metadata.get("x-request-id")
        if isinstance(given, str):
            headers["x-request-id"] = given[:128]
        answered = await upstream.rest(deployment.endpoint, deployment.version, body, headers)
        if len(answered.body) < POOL_BODY:
            return from_rest(answered, envelope)
        return await asyncio.to_thread(from_rest, answered, envelope)

    def forget(self) -> None:
        self.body = b""
        self.request = None
        self.forwarded = (b"", 0)
        self.envelope = None
        self.feeds = {}
