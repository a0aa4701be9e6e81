"""The web process's HTTP protocol: uvicorn's, with a limit on how long a client may take to send its head."""

from __future__ import annotations

import asyncio
import json
import uuid
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# A connection without a complete request head is closed after this long (seconds).
HEAD_S = 30.0
# And a head may have this many bytes.
MAX_HEAD = 64 << 10


class Protocol(HttpToolsProtocol):
    """Closes connections that dribble a head, and answers 431 to one that never ends."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        # Most heads come in one piece and never need a timer.
        if self._in_head and self._head_timer is None:
            self._arm()
        if self._in_head and self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self._refuse(431, f"The head of the request is too large: it may have {MAX_HEAD // 1024} kB.", "too_large")

    def send_400_response(self, msg: str) -> None:
        """What cannot be read as HTTP gets a problem document like everything else."""
        self._refuse(400, msg, "invalid")

    def _refuse(self, status: int, detail: str, code: str) -> None:
        from slipway.api.problems import CONTENT_TYPE, body  # the settings are not there yet when this is imported

        request_id = str(uuid.uuid4())
        content = json.dumps(body(status, detail, code, request_id=request_id)).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {CONTENT_TYPE}\r\n"
            f"content-length: {len(content)}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def _arm(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_S, self._too_slow)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()
