"""One inference on the short way: its body is collected, the dataplane is called, the answer is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.call import Call
from serving.protocol.errors import ServingError, crowded
from serving.rest import Asked, Headers, RestCall
from serving.wire import CLOSING

if TYPE_CHECKING:
    from serving.protocol_http import Protocol


class _NoEvent:
    """Stands in for the event with which uvicorn wakes an application."""

    def set(self) -> None:
        """Nobody waits."""


_NO_EVENT = _NoEvent()


class Exchange:
    """One inference on the short way. For uvicorn it looks like one of its own request cycles."""

    __slots__ = (
        "asked", "body", "counted", "disconnected", "keep_alive", "protocol", "received", "request_id",
        "response_complete",
    )  # fmt: skip
    message_event = _NO_EVENT

    def __init__(self, protocol: Protocol, asked: Asked) -> None:
        self.protocol = protocol
        self.asked = asked
        self.keep_alive = asked.keep_alive
        self.disconnected = False
        self.response_complete = False
        self.body: bytes | bytearray = b""
        self.received = 0
        self.counted = 0  # bytes that count against the budget
        self.request_id = protocol.wire.ids.of(asked.given_id)

    def begin(self) -> None:
        """The body is whole: hand it to the dataplane."""
        body = self.body
        self.release()
        self.run(body)

    def run(self, body: bytes | bytearray) -> None:
        """Infer."""
        wire = self.protocol.wire
        try:
            call = RestCall(wire.dataplane, self.asked, body, self.request_id, self.finish)
        except ServingError as error:
            self.refuse(error)
        else:
            wire.dataplane.infer(call)

    def release(self) -> None:
        """Let go of the body: it no longer counts as being read."""
        self.protocol.wire.runtime.body_bytes -= self.counted
        self.counted = 0
        self.body = b""

    def add(self, chunk: bytes) -> None:
        """Take a piece of the body. One that comes whole is never counted: it is already here."""
        if len(chunk) == self.asked.length:
            self.body = chunk
            return
        if not self.body:
            self.body = bytearray()
        self.body += chunk
        self.counted += len(chunk)
        runtime = self.protocol.wire.runtime
        runtime.body_bytes += len(chunk)
        if runtime.body_bytes > runtime.body_budget:
            # The rest is still read, and thrown away: who is cut off while sending never sees the answer.
            self.release()
            self.refuse(crowded())

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
        if any(name == b"connection" for name, _ in headers):
            self.keep_alive = False
        elif not self.keep_alive or wire.runtime.draining:
            self.keep_alive = False
            headers = (*headers, CLOSING)
        protocol.transport.write(wire.message(status, headers, body))
        protocol.answered(self)
