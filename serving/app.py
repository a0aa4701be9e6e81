"""The raw ASGI application: routes, bodies, answers. Few steps per request, hence no framework."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import secrets
import time
from typing import Any

from serving import discovery
from serving.infer import Call, ModelFailure
from serving.protocol.encode import BINARY_TYPE, JSON_TYPE, Encoded
from serving.protocol.errors import BadInput, ServingError, bad_request
from serving.routes import Route, Router
from serving.runtime import Runtime
from serving.table import Endpoint

log = logging.getLogger("serving.app")

# From this many bytes on, parsing alone would hold up the event loop: it happens in the pool.
POOL_BODY = 64 << 10
# A body may take this long, and a little more for each byte: who is slower holds memory for nothing.
BODY_S = 30.0
BODY_BYTES_PER_S = 256 << 10
_PLAIN_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class ClientGone(Exception):
    """The client left before its request was whole."""


class App:
    """One process's application."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.router = Router()
        self._ids = itertools.count()
        self._prefix = secrets.token_hex(5) + "-"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        runtime = self.runtime
        headers = dict(scope["headers"])
        request_id = self._request_id(headers.get(b"x-request-id"))
        model = ""
        try:
            route = self.router.find(scope["raw_path"])
            method = scope["method"]
            if method not in route.methods:
                raise ServingError(
                    405, "this method is not allowed here", ((b"allow", ", ".join(route.methods).encode()),)
                )
            if route.kind == "infer":
                model = route.model if route.model in runtime.table.endpoints else ""
                await self._infer(route, headers, receive, send, request_id)
                return
            status, body, extra = await self._other(route, headers, receive)
            await self._send(send, status, (*extra, (b"x-request-id", request_id)), body, model)
        except ServingError as error:
            await self._refuse(send, error, request_id, model)
        except ClientGone:
            runtime.responses[(model, 499)] += 1
        except Exception:
            reference = secrets.token_hex(4)
            log.exception("unexpected error (reference %s)", reference)
            unexpected = ServingError(500, f"unexpected error (reference {reference})")
            await self._refuse(send, unexpected, request_id, model)

    def _request_id(self, given: bytes | None) -> bytes:
        """The client's id when it is plain and short, cut at 128; else a new one."""
        if given and _PLAIN_ID.fullmatch(given[:128]):
            return given[:128]
        return f"{self._prefix}{next(self._ids):x}".encode()

    def _endpoint(self, name: str, headers: dict[bytes, bytes]) -> Endpoint:
        endpoint = self.runtime.table.endpoints.get(name)
        if endpoint is None:
            if not self.runtime.loaded:
                raise ServingError(503, "the server is still loading its models", ((b"retry-after", b"1"),))
            raise ServingError(404, "there is no such model")
        if endpoint.protected:
            endpoint.authorize(headers.get(b"authorization"))
        return endpoint

    async def _infer(
        self, route: Route, headers: dict[bytes, bytes], receive: Any, send: Any, request_id: bytes
    ) -> None:
        runtime = self.runtime
        self._endpoint(route.model, headers)
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise ServingError(415, "compressed bodies are not supported")
        head = _head_size(headers.get(b"inference-header-content-length"))
        body = await self._body(headers, receive)
        start = time.perf_counter()
        # Looked up again: the table may have changed while the body came in.
        endpoint = self._endpoint(route.model, headers)
        table = runtime.table
        key = headers.get(b"x-slipway-key") or headers.get(b"x-request-id")
        call = Call(endpoint, route.version, key, body, head)
        table.inflight += 1
        # A large body counts against the budget until its call is done: it waits for a thread meanwhile.
        held = len(body) if len(body) >= POOL_BODY else 0
        runtime.body_bytes += held
        try:
            if len(body) >= POOL_BODY:
                outcome = await asyncio.get_running_loop().run_in_executor(runtime.pool, call.whole)
                try:
                    if isinstance(outcome, ServingError):
                        raise outcome
                    encoded = outcome
                finally:
                    # An error that its own frame still names is a cycle, and would keep the body alive.
                    del outcome
            elif call.decode():
                encoded = call.run()
            else:
                encoded = await asyncio.get_running_loop().run_in_executor(runtime.pool, call.run)
        except (BadInput, ModelFailure) as error:
            deployment = call.deployment
            if deployment is not None and (deployment.blame_input or isinstance(error, ModelFailure)):
                micros = (time.perf_counter() - start) * 1e6
                runtime.recorder.record(deployment, time.time(), micros, True)
            if deployment is not None:
                error.headers = (*error.headers, deployment.header)
            raise
        finally:
            table.inflight -= 1
            runtime.body_bytes -= held
        deployment = call.deployment
        assert deployment is not None
        runtime.recorder.record(deployment, time.time(), (time.perf_counter() - start) * 1e6, False, call.label)
        await self._send(send, 200, _answer_headers(encoded, deployment.header, request_id), encoded.body, route.model)
        if endpoint.shadows:
            runtime.mirror.send(endpoint.shadows, call.feeds)

    async def _body(self, headers: dict[bytes, bytes], receive: Any) -> bytes | bytearray:
        """The whole body. Raises ServingError: 413 too large, 408 too slow, 503 too many at once."""
        limit = self.runtime.options.max_body
        announced = headers.get(b"content-length")
        expected = int(announced) if announced is not None and announced.isdigit() else 0
        if expected > limit:
            # A modest excess is let in (and thrown away), so that the client gets to read the answer.
            closing = ((b"connection", b"close"),) if expected > 4 * limit else ()
            raise ServingError(413, f"the body is larger than {limit} bytes", closing)
        message = await receive() if expected else await asyncio.wait_for(receive(), BODY_S)
        if message["type"] == "http.disconnect":
            raise ClientGone
        if not message["more_body"]:
            body: bytes = message["body"]
            if len(body) > limit:
                raise ServingError(413, f"the body is larger than {limit} bytes")
            return body
        return await self._long_body(message["body"], receive, limit, expected)

    async def _long_body(self, first: bytes, receive: Any, limit: int, expected: int) -> bytearray:
        runtime = self.runtime
        body, size = bytearray(first), len(first)
        runtime.body_bytes += size
        try:
            async with asyncio.timeout(BODY_S + expected / BODY_BYTES_PER_S):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    chunk = message["body"]
                    size += len(chunk)
                    runtime.body_bytes += len(chunk)
                    if size > limit:
                        close = ((b"connection", b"close"),)
                        raise ServingError(413, f"the body is larger than {limit} bytes", close)
                    if runtime.body_bytes > runtime.body_budget:
                        raise ServingError(503, "too many large bodies at once", ((b"retry-after", b"1"),))
                    body += chunk
                    more = message["more_body"]
        except TimeoutError:
            raise ServingError(408, "the body came in too slowly", ((b"connection", b"close"),)) from None
        finally:
            runtime.body_bytes -= size
        return body

    async def _other(
        self, route: Route, headers: dict[bytes, bytes], receive: Any
    ) -> tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]:
        runtime = self.runtime
        if route.kind in ("model", "model-ready"):
            endpoint = self._endpoint(route.model, headers)
            return discovery.answer_model(route, endpoint)
        if route.kind == "index":
            body = await self._body(headers, receive)
            return discovery.answer_index(runtime, headers.get(b"authorization"), body)
        if route.kind == "metrics":
            # Reading the other processes' files and rendering is work for a thread.
            mine = runtime.snapshot()
            text = await asyncio.to_thread(discovery.metrics_text, runtime.snapshots, mine)
            return 200, text, (discovery.METRICS_TYPE,)
        return discovery.answer_server(route, runtime)

    async def _refuse(self, send: Any, error: ServingError, request_id: bytes, model: str) -> None:
        body = discovery.dump({"error": error.text})
        headers = (JSON_TYPE, (b"x-request-id", request_id), *error.headers)
        await self._send(send, error.status, headers, body, model)

    async def _send(
        self, send: Any, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes, model: str
    ) -> None:
        runtime = self.runtime
        runtime.responses[(model, status)] += 1
        length = (b"content-length", b"%d" % len(body))
        closing = ((b"connection", b"close"),) if runtime.draining else ()
        await send({"type": "http.response.start", "status": status, "headers": (*headers, length, *closing)})
        await send({"type": "http.response.body", "body": body})


def _answer_headers(
    encoded: Encoded, deployment: tuple[bytes, bytes], request_id: bytes
) -> tuple[tuple[bytes, bytes], ...]:
    mine = (b"x-request-id", request_id)
    if encoded.json_size is None:
        return (JSON_TYPE, deployment, mine)
    size = (b"inference-header-content-length", b"%d" % encoded.json_size)
    return (BINARY_TYPE, size, deployment, mine)


def _head_size(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > 12:
        raise bad_request("Inference-Header-Content-Length must be a whole number")
    return int(value)


def instance_name(started: float) -> str:
    """A name no other process has or had: host, process id, second of its start."""
    return f"{os.uname().nodename}-{os.getpid()}-{int(started)}"
