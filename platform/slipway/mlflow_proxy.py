"""MLflow behind our own login: `/mlflow/*` is checked, then streamed to the MLflow server on loopback.

Bodies pass chunk by chunk in both directions and each side waits for the other, so memory stays flat
whatever the size. Nothing of the caller's credentials reaches MLflow. What a path means is decided in
`registry.mlflow.rules`, who may come in by `registry.mlflow.door`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote, urlsplit

import httpcore
import structlog

from registry.mlflow import ownership, rules
from registry.mlflow.door import Door, Headers, Refused, Scope, Send, answer, away, scheme_of
from slipway.environment import environment

log = structlog.get_logger(__name__)

Receive = Callable[[], Awaitable[Any]]

PREFIX = "/mlflow"
CONNECTIONS = 64
# MLflow's server drops idle connections after five seconds: never be the one that finds out.
KEEP_ALIVE_SECONDS = 3.0
TIMEOUT = {"connect": 3.0, "pool": 10.0, "read": 180.0, "write": 60.0}
# Everything but artifacts is held in memory by MLflow.
LARGEST_CALL = 64 * 1024 * 1024
LARGEST_INSPECTED = 4 * 1024 * 1024
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer trailers "
    b"transfer-encoding upgrade".split()
)
# Ours, or set anew below. Without Origin, MLflow's own cross-origin check has nothing left to ask: we asked.
NOT_SENT = HOP_BY_HOP | frozenset(
    b"authorization cookie host origin expect forwarded x-forwarded-for x-forwarded-host x-forwarded-proto "
    b"x-forwarded-port x-forwarded-prefix x-real-ip".split()
)
NOT_RETURNED = HOP_BY_HOP | frozenset({b"set-cookie", b"server", b"date", b"location"})


class _ClientGone(Exception):
    """The client hung up while it was sending."""


class MlflowProxy:
    """The ASGI application for `/mlflow` and everything below it."""

    def __init__(self, base: str | None = None) -> None:
        parts = urlsplit(base or environment.mlflow_base)
        self._scheme = parts.scheme.encode()
        self._host, self._port = (parts.hostname or "127.0.0.1").encode(), parts.port
        self._host_header, self._base = parts.netloc.rpartition("@")[2].encode(), parts.path.encode()
        self._origin = self._scheme + b"://" + self._host_header
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._door = Door()

    async def close(self) -> None:
        """Ends the connections to MLflow."""
        self._door.close()
        if self._pool is not None:
            await self._pool.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            target, path = self._target(scope)
            verdict = await self._door.admit(scope, headers, path)
            await self._door.placed(scope, path, verdict)
            if scope["path"] == PREFIX:
                raise Refused(307, "", "", [(b"location", b"/mlflow/")])
            body = _Body(receive, headers, limit=None if rules.is_artifact(scope["method"], path) else LARGEST_CALL)
            if rules.places_files(scope["method"], path):
                await body.inspect(headers)
            if ownership.concerns(scope["method"], path):
                body.replace(await self._door.registered(path, await body.hold(headers), verdict))
            await self._until_gone(scope, send, target, path, body)
        except Refused as refused:
            await answer(send, refused)
        except _ClientGone:
            return

    # Before anything is forwarded

    def _target(self, scope: Scope) -> tuple[bytes, str]:
        """(path and query to ask MLflow for, decoded path below the prefix)."""
        raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        if fault := rules.path_fault(raw.decode("latin-1")):
            raise Refused(400, "INVALID_PARAMETER_VALUE", fault)
        path = scope["path"][len(PREFIX) :]
        if not raw.startswith(PREFIX.encode()):  # an encoded letter of the prefix
            raise Refused(400, "INVALID_PARAMETER_VALUE", "The path must begin with /mlflow.")
        # The prefixed artifact routes of MLflow hold a whole file in memory, the bare ones stream.
        bare = self._base == PREFIX.encode() and rules.is_artifact(scope["method"], path)
        target = (b"" if bare else self._base) + raw[len(PREFIX) :]
        return target + (b"?" + scope["query_string"] if scope["query_string"] else b""), path

    # Forwarding

    async def _until_gone(self, scope: Scope, send: Send, target: bytes, path: str, body: _Body) -> None:
        """Forwards, and cancels the call to MLflow as soon as the client hangs up."""
        call = asyncio.create_task(self._forward(scope, send, target, path, body))
        gone = asyncio.create_task(body.gone())
        try:
            await asyncio.wait({call, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, call):
                if not task.done():
                    task.cancel()
            results = await asyncio.gather(call, gone, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]

    async def _forward(self, scope: Scope, send: Send, target: bytes, path: str, body: _Body) -> None:
        url = httpcore.URL(scheme=self._scheme, host=self._host, port=self._port, target=target)
        sent = self._headers(scope, body.length)
        extensions = {"timeout": TIMEOUT}
        tries = 2 if scope["method"] in {"GET", "HEAD"} and not body.is_expected else 1
        while True:
            tries -= 1
            content = body.chunks() if body.is_expected else None
            request = httpcore.Request(scope["method"], url, headers=sent, content=content, extensions=extensions)
            try:
                response = await self._connections().handle_async_request(request)
                break
            except (httpcore.NetworkError, httpcore.ProtocolError) as error:
                if body.fault is not None:
                    raise body.fault from error
                if tries == 0 or isinstance(error, httpcore.ConnectError):
                    log.warning("mlflow_away", error=repr(error), path=path)
                    raise away("MLflow does not answer. Try again in a few seconds.") from error
            except httpcore.TimeoutException as error:
                log.warning("mlflow_slow", error=repr(error), path=path)
                raise away("MLflow did not answer in time. Try again in a few seconds.") from error
        try:
            headers = self._returned(response.headers, path)
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            async for chunk in response.aiter_stream():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            # The head is out: an unfinished answer makes the server close the connection, so that the
            # client sees a torn transfer and not a short file.
            log.warning("mlflow_broke_off", error=repr(error), path=path)
        finally:
            await response.aclose()

    def _connections(self) -> httpcore.AsyncConnectionPool:
        if self._pool is None:  # made inside of the event loop it belongs to
            self._pool = httpcore.AsyncConnectionPool(
                max_connections=CONNECTIONS,
                max_keepalive_connections=CONNECTIONS // 2,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            )
        return self._pool

    def _headers(self, scope: Scope, length: int | None) -> Headers:
        named = _named_by_connection(scope["headers"])
        headers: Headers = [(b"host", self._host_header)]
        chunked = False
        for name, value in scope["headers"]:
            chunked = chunked or name == b"transfer-encoding"
            if name not in NOT_SENT and name not in named:
                headers.append((name, value))
        if length is not None:
            headers = [(name, value) for name, value in headers if name != b"content-length"]
            headers.append((b"content-length", str(length).encode()))
        elif chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        given = dict(scope["headers"])
        client = scope.get("client")
        headers.append((b"x-forwarded-for", (client[0] if client else "unknown").encode()))
        headers.append((b"x-forwarded-proto", scheme_of(scope, given).encode()))
        headers.append((b"x-forwarded-host", given.get(b"host", b"")))
        return headers

    def _returned(self, given: Headers, path: str) -> Headers:
        named = _named_by_connection(given)
        headers = [
            (name.lower(), value)
            for name, value in given
            if name.lower() not in NOT_RETURNED and name.lower() not in named
        ]
        for name, value in given:
            if name.lower() == b"location":
                headers.append((b"location", value.removeprefix(self._origin)))
        if rules.holds_strangers_bytes(path):
            headers.append((b"content-security-policy", b"sandbox; default-src 'none'"))
        headers.append((b"referrer-policy", b"same-origin"))
        return headers


class _Body:
    """The request's body: read once, chunk by chunk, and afterwards the watch for a client that hangs up."""

    def __init__(self, receive: Receive, headers: dict[bytes, bytes], *, limit: int | None) -> None:
        length = headers.get(b"content-length", b"0")
        self.is_expected = b"transfer-encoding" in headers or length != b"0"
        self.fault: Exception | None = None
        self.length: int | None = None  # of a body that we wrote
        self._receive, self._limit = receive, limit
        self._read = asyncio.Event()
        self._held: bytes | None = None
        if limit is not None and length.isdigit() and int(length) > limit:
            raise _too_large(limit)

    async def inspect(self, headers: dict[bytes, bytes]) -> None:
        """Refuses locations of files outside of MLflow's store."""
        if fault := rules.location_fault(await self.hold(headers)):
            raise Refused(400, "INVALID_PARAMETER_VALUE", fault)

    async def hold(self, headers: dict[bytes, bytes]) -> bytes:
        """The whole of a small body, kept to be sent later."""
        if self._held is not None:
            return self._held
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Refused(415, "INVALID_PARAMETER_VALUE", "Send this call without a content encoding.")
        self._limit = LARGEST_INSPECTED
        held = [chunk async for chunk in self.chunks()]
        self._held = b"".join(held)
        return self._held

    def replace(self, content: bytes) -> None:
        """Sends `content` in place of what came."""
        if content != self._held:
            self._held = content
            self.length = len(content)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body. What goes wrong on the client's side is kept in `fault`, apart from MLflow's faults."""
        if self._held is not None:
            yield self._held
            return
        total, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.fault = _ClientGone()
                raise self.fault
            chunk: bytes = message.get("body", b"")
            total += len(chunk)
            if self._limit is not None and total > self._limit:
                self.fault = _too_large(self._limit)
                raise self.fault
            more = message.get("more_body", False)
            if chunk:
                yield chunk
        self._read.set()

    async def gone(self) -> None:
        """Returns when the client has hung up; never before its body was read."""
        if self.is_expected:
            await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            continue


def _too_large(limit: int) -> Refused:
    text = f"The body is larger than {limit // 1024**2} MiB, which only artifacts may be."
    return Refused(413, "INVALID_PARAMETER_VALUE", text)


def _named_by_connection(headers: Headers) -> set[bytes]:
    values = [value for name, value in headers if name.lower() == b"connection"]
    return {part.strip().lower() for value in values for part in value.split(b",")}
