"""What all connections of a process share: runtime, dataplane, paths seen, request ids, clock."""

from __future__ import annotations

import asyncio

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serving.dataplane import Dataplane
from serving.protocol.encode import JSON_TYPE
from serving.protocol.errors import ServingError
from serving.rest import Asked, Headers, RequestIds
from serving.routes import Router
from serving.runtime import Runtime
from serving.slow import Clock, Limits
from serving.spread import Member

_REMEMBERED = 1024
CLOSING = (b"connection", b"close")


class Wire:
    """One per process."""

    def __init__(self, runtime: Runtime, loop: asyncio.AbstractEventLoop, member: Member | None = None) -> None:
        self.runtime = runtime
        self.member = member  # None where the process is the only one
        self.dataplane = Dataplane(runtime, loop)
        self.router = Router()
        self.ids = RequestIds()
        self.clock = Clock(loop)
        self.limits = Limits(runtime.options.keep_alive_s, runtime.options.read_s)
        # Parsed heads of inferences by their very bytes.
        self.heads: dict[bytes, Asked] = {}

    def learn(self, data: bytes, asked: Asked) -> None:
        """Remember what a head says; one with a request id of its own would not come again."""
        if asked.given_id is not None:
            return
        if len(self.heads) >= _REMEMBERED:
            self.heads.clear()
        self.heads[data] = asked

    @staticmethod
    def message(status: int, headers: Headers, body: bytes) -> bytes:
        """An answer as it goes out, its length said last."""
        parts = [STATUS_LINE[status]]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        parts += (b"content-length: %d\r\n\r\n" % len(body), body)
        return b"".join(parts)

    @staticmethod
    def refusal(error: ServingError, request_id: bytes) -> tuple[Headers, bytes]:
        """Headers and body of an error's answer."""
        return (JSON_TYPE, (b"x-request-id", request_id), *error.headers), orjson.dumps({"error": error.text})
