"""uvicorn's HTTP protocol with a short way for inferences, and with limits on slow clients.

An inference whose length is announced needs no ASGI: its body is collected here, the dataplane is called, and the
answer is written to the connection. Everything else (other paths, chunked bodies, requests that queue up behind
one another) goes uvicorn's way to the application.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.call import Call
from serving.protocol.errors import ServingError
from serving.rest import Asked, Headers, RestCall
from serving.slow import IDLE, READING_BODY, READING_HEAD, WORKING, body_seconds
from serving.wire import Wire

# A request head may have this many bytes.
MAX_HEAD = 64 << 10
# Longer ones are not remembered.
MAX_KNOWN_HEAD = 2048
# With one of these a request goes the long way.
_UNUSUAL = frozenset({b"upgrade", b"content-encoding"})
_OK = STATUS_LINE[HTTPStatus.OK]


class _NoEvent:
    """Stands in for the event with which uvicorn wakes an application."""

    def set(self) -> None:
        """Nobody waits."""


_NO_EVENT = _NoEvent()


class Exchange:
    """One inference on the short way. For uvicorn it looks like one of its own request cycles."""

    __slots__ = (
        "asked", "chunks", "disconnected", "keep_alive", "protocol", "received", "request_id", "response_complete",
    )  # fmt: skip
    message_event = _NO_EVENT

    def __init__(self, protocol: Protocol, asked: Asked) -> None:
        self.protocol = protocol
        self.asked = asked
        self.keep_alive = asked.keep_alive
        self.disconnected = False
        self.response_complete = False
        self.chunks: list[bytes] = []
        self.received = 0
        self.request_id = protocol.wire.ids.of(asked.given_id)

    def begin(self) -> None:
        """The body is whole: hand it to the dataplane."""
        chunks = self.chunks
        self.release()
        self.chunks = []
        self.run(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    def run(self, body: bytes) -> None:
        """Infer."""
        wire = self.protocol.wire
        try:
            call = RestCall(wire.dataplane, self.asked, body, self.request_id, self.finish)
        except ServingError as error:
            self.refuse(error)
        else:
            wire.dataplane.infer(call)

    def release(self) -> None:
        """The body no longer counts as being read."""
        if len(self.chunks) > 1:
            self.protocol.wire.runtime.body_bytes -= self.received

    def add(self, chunk: bytes) -> None:
        """Take a piece of the body. One that comes whole is never counted: it is already here."""
        self.received += len(chunk)
        self.chunks.append(chunk)
        pieces = len(self.chunks)
        if pieces > 1:
            runtime = self.protocol.wire.runtime
            runtime.body_bytes += self.received if pieces == 2 else len(chunk)
            if runtime.body_bytes > runtime.body_budget:
                self.release()
                self.chunks = []
                self.keep_alive = False
                self.refuse(ServingError(503, "too many large bodies at once", ((b"retry-after", b"1"),)))

    def finish(self, call: Call) -> None:
        """Write a call's answer."""
        assert isinstance(call, RestCall)
        error = call.error
        if error is not None:
            self.refuse(error)
            return
        runtime = self.protocol.wire.runtime
        encoded = call.answer
        if encoded.json_size is not None or self.disconnected or not self.keep_alive or runtime.draining:
            self.send(200, call.headers(), encoded.body)
            return
        # The usual answer, in one piece.
        deployment, body = call.deployment, encoded.body
        assert deployment is not None
        self.response_complete = True
        runtime.responses[(deployment.endpoint, 200)] += 1
        head = b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (deployment.head, self.request_id, len(body))
        self.protocol.transport.write(head + body)
        self.protocol.answered(self)

    def refuse(self, error: ServingError) -> None:
        """Write an error's answer."""
        headers, body = self.protocol.wire.refusal(error, self.request_id)
        self.send(error.status, headers, body)

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        """Write an answer, whole."""
        protocol = self.protocol
        wire = protocol.wire
        known = wire.runtime.table.endpoints
        model = self.asked.route.model if self.asked.route.model in known else ""
        self.response_complete = True
        if self.disconnected:
            wire.runtime.responses[(model, 499)] += 1
            return
        wire.runtime.responses[(model, status)] += 1
        parts = [_OK if status == 200 else STATUS_LINE[status]]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
            if name == b"connection":
                self.keep_alive = False
        if not self.keep_alive or wire.runtime.draining:
            self.keep_alive = False
            if not any(name == b"connection" for name, _ in headers):
                parts.append(b"connection: close\r\n")
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        parts.append(body)
        protocol.transport.write(b"".join(parts))
        protocol.answered(self)


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, wire: Wire, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wire = wire
        self.phase = IDLE
        self.since = wire.clock.now
        self.allowed = 0.0  # seconds the body may take
        self._exchange: Exchange | None = None
        self._head_bytes = 0
        self._in_message = False  # the parser is between a message's start and its end
        self._head_data = b""  # what may be learnt when its parsing is over

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.phase, self.since = READING_HEAD, self.wire.clock.now

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.release()
            self.wire.runtime.responses[("", 499)] += 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.phase == IDLE and not self._in_message:
            # A head that was seen before says the same again. Only for a whole request, and nothing but it,
            # so that the parser need not know of it.
            end = data.find(b"\r\n\r\n", 0, MAX_KNOWN_HEAD) + 4
            asked = self.wire.heads.get(data[:end]) if end > 3 else None
            if asked is not None and len(data) - end == asked.length and self.timeout_keep_alive_task is None:
                exchange = Exchange(self, asked)
                self.cycle = exchange  # type: ignore[assignment]
                self.phase = WORKING
                exchange.run(data[end:])
                return
            self._head_data = data[:end] if len(data) >= end > 3 else b""
        if self.phase == READING_HEAD:
            self._head_bytes += len(data)
        super().data_received(data)
        self._head_data = b""
        if self.phase == READING_HEAD and self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("Request head is too large.")

    def pause_writing(self) -> None:
        # A client that does not read its answers is not read from either.
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.cycle is None or self.cycle.response_complete:
            self.flow.resume_reading()

    # -- parser callbacks ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_message = True
        self.phase, self.since = READING_HEAD, self.wire.clock.now

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        asked = self._short()
        if asked is not None:
            if self._head_data:
                self.wire.learn(self._head_data, asked)
                self._head_data = b""
            self._exchange = Exchange(self, asked)
            self.cycle = self._exchange  # type: ignore[assignment]
            self.phase, self.allowed = READING_BODY, body_seconds(asked.length)
            return
        self.phase = WORKING
        url, found, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # builds the scope, which the short way has no use for
        self.url, self.headers, self.expect_100_continue = url, found, expects
        self.scope["headers"] = found
        super().on_headers_complete()

    def _short(self) -> Asked | None:
        """The request's head if it can go the short way: an inference of a known length that can start now."""
        route, cycle, parser = self.wire.router.seen(self.url), self.cycle, self.parser
        if route is None or route.kind != "infer" or not (cycle is None or cycle.response_complete):
            return None
        if self.expect_100_continue or parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return None
        headers = dict(self.headers)
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or not 0 < int(length) <= self.wire.runtime.options.max_body:
            return None
        json_size = headers.get(b"inference-header-content-length", b"0")
        if not json_size.isdigit() or len(json_size) > 12 or not _UNUSUAL.isdisjoint(headers):
            return None
        return Asked(route, headers, int(length), parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            super().on_body(body)
        elif not exchange.response_complete:
            exchange.add(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        exchange = self._exchange
        if exchange is None:
            super().on_message_complete()
            return
        self._exchange = None
        if not exchange.response_complete:
            self.phase = WORKING
            exchange.begin()

    # -- answers ---------------------------------------------------------------------------------

    def answered(self, exchange: Exchange) -> None:
        """An answer was written: close, go on with what queued up behind it, or wait for the next request."""
        if not exchange.keep_alive:
            self.transport.close()
        queued = bool(self.pipeline)
        if queued or self.flow.read_paused:
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
        self.phase, self.since = WORKING if queued else IDLE, self.wire.clock.now

    def on_response_complete(self) -> None:
        queued = bool(self.pipeline)
        super().on_response_complete()
        self.phase, self.since = WORKING if queued else IDLE, self.wire.clock.now

    def too_slow(self) -> None:
        """The client took too long for its body, its head, or its next request."""
        exchange = self._exchange
        if exchange is not None and not exchange.response_complete:
            exchange.release()
            exchange.chunks = []
            exchange.keep_alive = False
            exchange.refuse(ServingError(408, "the body came in too slowly"))
        elif not self.transport.is_closing():
            self.transport.close()
