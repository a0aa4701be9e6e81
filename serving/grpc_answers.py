"""What gRPC answers beside inference: the same words as REST, as messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from serving import discovery
from serving.grpc_call import Metadata, authorization
from serving.protocol.errors import ServingError, bad_request
from serving.protocol.protobuf import SERVICE, methods
from serving.routes import Route
from serving.wire import Wire

Answerer = Callable[[Wire, bytes, Metadata], Awaitable[bytes]]
_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"
_GET = ("GET",)


def _ready(wire: Wire) -> bool:
    return wire.runtime.loaded and not wire.runtime.draining


async def _server_live(wire: Wire, asked: Any, metadata: Metadata) -> Any:
    return {"live": True}


async def _server_ready(wire: Wire, asked: Any, metadata: Metadata) -> Any:
    return {"ready": _ready(wire)}


async def _server_metadata(wire: Wire, asked: Any, metadata: Metadata) -> Any:
    return _said(discovery.answer_server(Route("server", _GET), wire.runtime))


async def _model_ready(wire: Wire, asked: Any, metadata: Metadata) -> Any:
    endpoint = wire.dataplane.endpoint(asked.name, authorization(metadata))
    return {"ready": endpoint.ready(asked.version or None)}


async def _model_metadata(wire: Wire, asked: Any, metadata: Metadata) -> Any:
    return _of_model("model", wire, asked, metadata)


async def _model_config(wire: Wire, asked: Any, metadata: Metadata) -> Any:
    return {"config": _of_model("config", wire, asked, metadata)}


async def _model_statistics(wire: Wire, asked: Any, metadata: Metadata) -> Any:
    caller, runtime = authorization(metadata), wire.runtime
    if asked.name:
        wire.dataplane.endpoint(asked.name, caller)
    route = Route("stats" if asked.name else "all-stats", _GET, asked.name, asked.version or None)
    return _said(await asyncio.to_thread(discovery.answer_statistics, route, runtime, caller, runtime.snapshot()))


async def _repository_index(wire: Wire, asked: Any, metadata: Metadata) -> Any:
    wish = orjson.dumps({"ready": asked.ready})
    return {"models": _said(discovery.answer_index(wire.runtime, authorization(metadata), wish))}


async def _read_only(wire: Wire, asked: Any, metadata: Metadata) -> Any:
    raise ServingError(501, "this server's models are changed by deployments alone; loading is not offered")


def _of_model(kind: str, wire: Wire, asked: Any, metadata: Metadata) -> Any:
    endpoint = wire.dataplane.endpoint(asked.name, authorization(metadata))
    return _said(discovery.answer_model(Route(kind, _GET, asked.name, asked.version or None), endpoint))


def _said(answer: discovery.Answer) -> Any:
    return orjson.loads(answer[1])


_HOW = {
    "ServerLive": _server_live,
    "ServerReady": _server_ready,
    "ServerMetadata": _server_metadata,
    "ModelReady": _model_ready,
    "ModelMetadata": _model_metadata,
    "ModelConfig": _model_config,
    "ModelStatistics": _model_statistics,
    "RepositoryIndex": _repository_index,
    "RepositoryModelLoad": _read_only,
    "RepositoryModelUnload": _read_only,
}


def _in_messages(name: str, taken: Any, given: Any) -> Answerer:
    how = _HOW[name]

    async def answer(wire: Wire, body: bytes, metadata: Metadata) -> bytes:
        try:
            asked = taken.FromString(body)
        except DecodeError:
            raise bad_request(f"the message is not a valid {name}Request") from None
        found = await how(wire, asked, metadata)
        # What REST says beyond the messages' fields is left out.
        encoded: bytes = ParseDict(found, given(), ignore_unknown_fields=True).SerializeToString()
        return encoded

    return answer


async def _health(wire: Wire, body: bytes, metadata: Metadata) -> bytes:
    """`grpc.health.v1.Health/Check`, which orchestrators ask: its messages are one string and one number."""
    if body[2:] not in (b"", SERVICE.encode()):
        raise ServingError(404, "there is no such service")
    return _SERVING if _ready(wire) else _NOT_SERVING


ANSWERS: dict[str, Answerer] = {name: _in_messages(name, *sides) for name, sides in methods().items() if name in _HOW}
ANSWERS["/grpc.health.v1.Health/Check"] = _health
