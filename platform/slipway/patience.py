"""Slow clients wait in the event loop, where waiting costs nothing; a thread only ever gets what is ready.

Pages and the API run in a few threads. A client that dribbles a body, or that never reads an answer, would
hold one of them for as long as it likes, and a dozen such clients would hold them all. So bodies are read
whole before a thread starts (uploads, which must stream, have threads of their own), and whoever takes too
long to send or to read loses the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog
from a2wsgi import WSGIMiddleware

from slipway.api.problems import CONTENT_TYPE, body

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

# A body may take this long, and a little more for each byte.
BODY_SECONDS = 20.0
BYTES_PER_SECOND = 32 * 1024
# One piece of an answer (at most 64 kB lie in the connection before it) may wait this long for its reader.
READ_SECONDS = 30.0
# Bodies up to this size are let in always; all larger ones together may use this much memory.
SMALL = 64 * 1024
BUDGET = 96 * 1024 * 1024


class Refused(Exception):
    """The request ends here, with this status."""

    def __init__(self, status: int, detail: str, code: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.code = status, detail, code


class Gone(Exception):
    """The client hung up before its request was whole."""


class Memory:
    """What all bodies that are being read or worked on hold together."""

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget, self.held = budget, 0

    def take(self, size: int, more: int) -> None:
        """Counts `more` bytes of a body that then has `size`; Refused when that is too much."""
        self.held += more
        if size > SMALL and self.held > self.budget:
            raise Refused(503, "Too many large bodies at once. Try again in a few seconds.", "busy")


class Threads:
    """A WSGI application in threads of its own; `limit` is the largest body in bytes.

    With `streams` bodies are passed on as they come, for uploads.
    """

    def __init__(self, app: Any, *, workers: int, limit: int, memory: Memory, streams: bool = False) -> None:
        self.workers, self.limit, self.memory, self.streams = workers, limit, memory, streams
        self.busy = 0
        self._wsgi = WSGIMiddleware(app, workers=workers, send_queue_size=32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = _Held(self.memory)
        self.busy += 1
        try:
            if self.streams:
                receive = _steady(receive, self.limit)
            else:
                receive = _ready(await held.whole(scope, receive, self.limit), receive)
            await self._wsgi(scope, receive, _Reader(send, scope["path"]))  # type: ignore[arg-type]
        except Refused as refused:
            await _refuse(send, refused)
        except Gone:
            return
        finally:
            self.busy -= 1
            held.release()


class _Held:
    """One body and what of the memory it holds."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.size = memory, 0

    def release(self) -> None:
        self.memory.held -= self.size
        self.size = 0

    async def whole(self, scope: Scope, receive: Receive, limit: int) -> bytes:
        """The whole body, read here. Refused: 413 too large, 408 too slow, 503 too many."""
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if length == b"0" and b"transfer-encoding" not in headers:
            return b""
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        expected = int(length) if length.isdigit() else 0
        found = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS + expected / BYTES_PER_SECOND):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    chunk = message.get("body", b"")
                    found += chunk
                    self.size += len(chunk)
                    self.memory.take(self.size, len(chunk))
                    if self.size > limit:
                        raise _too_large(limit)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Refused(408, "The body came in too slowly.", "too_slow") from None
        return bytes(found)


def _too_large(limit: int) -> Refused:
    return Refused(413, f"A body has at most {limit // 1024**2} MB.", "too_large")


def _ready(content: bytes, receive: Receive) -> Receive:
    """A body that is there already; afterwards the connection itself."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": content, "more_body": False}

    return next_message


def _steady(receive: Receive, limit: int) -> Receive:
    """A body as it comes, broken off when it is too slow or too large: its reader finds it too short."""
    loop = asyncio.get_running_loop()
    size, started = 0, loop.time()

    async def next_message() -> Message:
        nonlocal size
        try:
            async with asyncio.timeout_at(started + BODY_SECONDS + size / BYTES_PER_SECOND):
                message: Message = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        size += len(message.get("body", b""))
        return message if size <= limit else {"type": "http.disconnect"}

    return next_message


def without_body(receive: Receive) -> Receive:
    """For handlers that want no body and would write one of any size to the disk: it is thrown away."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while (message := await receive())["type"] != "http.disconnect":
            continue
        return message  # type: ignore[no-any-return]

    return next_message


class _Reader:
    """The way to a client. One that does not read is given up: what follows is dropped, and the server
    closes the connection because the answer stays unfinished."""

    def __init__(self, send: Send, path: str) -> None:
        self._send, self._path, self._given_up = send, path, False

    async def __call__(self, message: Any) -> None:
        if self._given_up:
            return
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._send(message)
        except TimeoutError:
            self._given_up = True
            log.warning("client_does_not_read", path=self._path)


async def _refuse(send: Send, refused: Refused) -> None:
    content = json.dumps(body(refused.status, refused.detail, refused.code)).encode()
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    if refused.status == 503:
        headers.append((b"retry-after", b"5"))
    with contextlib.suppress(OSError):
        await send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
