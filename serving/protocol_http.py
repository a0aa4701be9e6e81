"""uvicorn's HTTP protocol with a short way for inferences, and with limits on slow clients.

An inference whose length is announced needs no ASGI: its body is collected here, the dataplane is called, and the
answer is written to the connection. Everything else (other paths, chunked bodies, requests that queue up behind
one another) goes uvicorn's way to the application.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.exchange import Exchange
from serving.flow import Flow
from serving.protocol.errors import ServingError
from serving.rest import Asked
from serving.slow import IDLE, READING_BODY, READING_HEAD, WORKING
from serving.wire import CLOSING, Wire

# A request head may have this many bytes, and so many may come in later without any of the body among them: the
# frames of chunks and the trailer behind them.
MAX_HEAD = 64 << 10
MAX_HEADERS = 200
# The parser gets what came in by pieces of this size, so that it can be stopped: a read of 256 kB may hold ten
# thousand requests, each of which would become a hundred times its size.
_PIECE = 1 << 10
_BODY_PIECE = 4 << 10
# A connection that was made just before the server stops listening may have its first request on the way.
_LAST_WORD_S = 0.5
# Longer ones are not remembered.
MAX_KNOWN_HEAD = 2048
# With one of these a request goes the long way.
_UNUSUAL = frozenset({b"upgrade", b"content-encoding"})


class _Nowhere(list[tuple[bytes, bytes]]):
    """Takes a trailer's headers, which nobody reads: they must not pass for headers of the request."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        """Forget it."""


_NOWHERE = _Nowhere()


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, wire: Wire, handed: socket.socket | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wire = wire
        self._handed = handed  # by another process
        self._stays = handed is not None  # none is handed on twice
        self.phase = IDLE
        self.since = wire.clock.now
        self.allowed = 0.0  # seconds the body may take
        self._exchange: Exchange | None = None
        self._ahead: Any = None  # the request being answered, where others queue up behind it
        self.read_by: float | None = None  # when the client must have read its answers
        self.held = b""  # read, but not yet parsed
        self._unpaid = 0  # bytes of the message since its head or a part of its body was complete
        self._in_message = False  # the parser is between a message's start and its end
        self._head_data = b""  # what may be learnt when its parsing is over

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        member = self.wire.member
        if not self._stays and member is not None and member.hand_over(transport):
            transport.abort()  # closes this process's descriptor; the connection lives on in the other
            return
        if self._handed is not None:
            # The transport owns the descriptor now. uvloop ties the two a moment later: where the answer is written
            # and the connection closed before that, the object would close the number's next owner.
            self._handed.detach()
        self._stays = True
        super().connection_made(transport)
        if member is not None:
            member.count(len(self.connections))
        self.flow = Flow(transport, self)
        self.phase, self.since = READING_HEAD, self.wire.clock.now

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._stays:
            return
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.release()
            self.wire.runtime.responses[("", 499)] += 1
        self._hold(b"")
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead.response_complete:
            ahead.disconnected = True  # uvicorn tells only the last one
            ahead.message_event.set()
        super().connection_lost(exc)
        if self.wire.member is not None:
            self.wire.member.count(len(self.connections))

    def shutdown(self) -> None:
        # What is on its way is still answered, with "connection: close"; the limit on draining ends the rest.
        if self._in_message or self.held:
            return
        if self.phase == READING_HEAD:
            self.loop.call_later(_LAST_WORD_S, self._leave)
        else:
            super().shutdown()

    def _leave(self) -> None:
        if self.phase == READING_HEAD and not self._in_message:
            self.transport.close()

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
            # Empty lines before a request are none of its head, though the parser lets them pass.
            self._head_data = data[:end] if end > 3 and data.startswith(b"POST ") else b""
        if len(data) <= _PIECE:
            self._parse(data)
            self._head_data = b""
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Give the parser what came in until there is enough to do; the rest is held."""
        view, at, size = memoryview(data), 0, len(data)
        while at < size:
            exchange = self._exchange
            if exchange is not None:
                piece = max(_PIECE, exchange.asked.length - exchange.received)
            elif at == 0 and self._head_data:
                piece = len(self._head_data)  # so that the body behind it comes whole
            else:
                piece = _BODY_PIECE if self._in_message and self.phase == WORKING else _PIECE
            self._parse(view[at : at + piece])
            self._head_data = b""
            at += piece
            if self.transport.is_closing():
                return
            if self.flow.read_paused:
                self._hold(data[at:])
                return

    def _parse(self, piece: bytes | memoryview) -> None:
        if self._in_message:
            self._unpaid += len(piece)
        super().data_received(piece)  # type: ignore[arg-type]
        if self._in_message and self._unpaid > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("the request's head, or what is around its body, is too large")

    def send_400_response(self, msg: str) -> None:
        # uvicorn's is plain text, and no number tells of it.
        wire = self.wire
        headers, body = wire.refusal(ServingError(400, msg.rstrip(".")), wire.ids.of(None))
        wire.runtime.responses[("", 400)] += 1
        self.transport.write(wire.message(400, (*headers, CLOSING), body))
        self.transport.close()

    def _hold(self, data: bytes) -> None:
        runtime = self.wire.runtime
        runtime.body_bytes += len(data) - len(self.held)
        self.held = data
        if data and runtime.body_bytes > runtime.body_budget:
            self.transport.close()

    def go_on(self) -> None:
        """Take up what was held, then read on; called by the flow."""
        if self.flow.read_paused or self.transport.is_closing():
            return
        data = self.held
        self._hold(b"")
        if data:
            self._feed(data)
        if not (self.held or self.flow.read_paused or self.transport.is_closing()):
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        # A client that does not read its answers is not read from either, and not for ever.
        super().pause_writing()
        self.flow.pause_reading()
        self.read_by = self.wire.clock.now + self.wire.limits.transfer(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self.read_by = None
        self.flow.resume_reading()

    # -- parser callbacks ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_message = True
        self._unpaid = 0
        self.phase, self.since = READING_HEAD, self.wire.clock.now

    def on_headers_complete(self) -> None:
        self._unpaid = 0
        if len(self.headers) > MAX_HEADERS:
            raise ValueError("too many headers")  # the parser makes a 400 of it
        asked = self._short()
        if asked is not None:
            if self._head_data:
                self.wire.learn(self._head_data, asked)
                self._head_data = b""
            self._exchange = Exchange(self, asked)
            self.cycle = self._exchange  # type: ignore[assignment]
            self.phase, self.allowed = READING_BODY, self.wire.limits.transfer(asked.length)
            self.headers = _NOWHERE
            return
        self.phase = WORKING
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not self.pipeline:
            self._ahead = cycle
        url, found, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # builds the scope, which the short way has no use for
        self.url, self.headers, self.expect_100_continue = url, found, expects
        self.scope["headers"] = found
        super().on_headers_complete()
        self.headers = _NOWHERE

    def _short(self) -> Asked | None:
        """The request's head if it can go the short way: an inference of a known length that can start now."""
        route, cycle, parser = self.wire.router.seen(self.url), self.cycle, self.parser
        if route is None or route.kind != "infer" or not (cycle is None or cycle.response_complete):
            return None
        if self.flow.write_paused:
            return None  # the long way waits until the answers before it are read
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
        self._unpaid = 0
        exchange = self._exchange
        if exchange is None:
            super().on_body(body)
            return
        exchange.received += len(body)
        if not exchange.response_complete:
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

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._ahead = cycle
        super()._start_asgi_task(cycle, app)

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
        """The client took too long for its body, its head, its next request, or to read an answer."""
        if self.read_by is not None or self.transport.is_closing():
            self.transport.abort()  # closing waits for what is written to be read
            return
        self.since = self.wire.clock.now
        exchange = self._exchange
        if exchange is not None and not exchange.response_complete:
            exchange.release()
            exchange.keep_alive = False
            exchange.refuse(ServingError(408, "the body came in too slowly"))
        else:
            self.transport.close()
