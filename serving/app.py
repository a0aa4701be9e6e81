"""The raw ASGI application: everything but the usual inference, which protocol_http.py answers itself."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from typing import Any

from serving import discovery
from serving.call import Call
from serving.protocol.errors import ServingError, crowded
from serving.rest import Asked, Headers, RestCall
from serving.routes import Route
from serving.wire import CLOSING, Wire

log = logging.getLogger("serving.app")


class ClientGone(Exception):
    """The client left before its request was whole."""


class App:
    """One process's application."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.runtime = wire.runtime

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        request_id = self.wire.ids.of(headers.get(b"x-request-id"))
        model = ""
        try:
            route = self.wire.router.find(scope["raw_path"])
            method = scope["method"]
            if method not in route.methods:
                raise ServingError(
                    405, "this method is not allowed here", ((b"allow", ", ".join(route.methods).encode()),)
                )
            if route.model in self.runtime.table.endpoints:
                model = route.model
            answer = self._infer if route.kind == "infer" else self._other
            status, more, body = await answer(route, headers, receive, request_id)
        except ServingError as error:
            status = error.status
            more, body = self.wire.refusal(error, request_id)
        except ClientGone:
            self.runtime.responses[(model, 499)] += 1
            return
        except Exception:
            reference = secrets.token_hex(4)
            log.exception("unexpected error (reference %s)", reference)
            status = 500
            more, body = self.wire.refusal(ServingError(500, f"unexpected error (reference {reference})"), request_id)
        self.runtime.responses[(model, status)] += 1
        length = (b"content-length", b"%d" % len(body))
        closing = (CLOSING,) if self.runtime.draining else ()
        await send({"type": "http.response.start", "status": status, "headers": (*more, length, *closing)})
        await send({"type": "http.response.body", "body": body})

    async def _infer(
        self, route: Route, headers: dict[bytes, bytes], receive: Any, request_id: bytes
    ) -> tuple[int, Headers, bytes]:
        dataplane = self.wire.dataplane
        dataplane.endpoint(route.model, headers.get(b"authorization"))  # before a body is read for nothing
        asked = Asked(route, headers)
        asked.check()
        body = await self._body(headers, receive)
        done: asyncio.Future[Call] = asyncio.get_running_loop().create_future()

        def finish(call: Call) -> None:
            if not done.cancelled():
                done.set_result(call)

        call = RestCall(dataplane, asked, body, request_id, finish)
        dataplane.infer(call)
        await done
        if call.error is not None:
            more, text = self.wire.refusal(call.error, request_id)
            return call.error.status, more, text
        return 200, call.headers(), call.answer.body

    async def _body(self, headers: dict[bytes, bytes], receive: Any) -> bytes | bytearray:
        """The whole body. Raises ServingError: 413 too large, 408 too slow, 503 too many at once."""
        limit = self.runtime.options.max_body
        announced = headers.get(b"content-length")
        expected = int(announced) if announced is not None and announced.isdigit() else 0
        if expected > limit:
            # A modest excess is let in (and thrown away), so that the client gets to read the answer.
            closing = (CLOSING,) if expected > 4 * limit else ()
            raise ServingError(413, f"the body is larger than {limit} bytes", closing)
        try:
            async with asyncio.timeout(self.wire.limits.transfer(expected)):
                message = await receive()
        except TimeoutError:
            raise ServingError(408, "the body came in too slowly", (CLOSING,)) from None
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
            async with asyncio.timeout(self.wire.limits.transfer(expected)):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    chunk = message["body"]
                    size += len(chunk)
                    runtime.body_bytes += len(chunk)
                    if size > limit:
                        close = (CLOSING,)
                        raise ServingError(413, f"the body is larger than {limit} bytes", close)
                    if runtime.body_bytes > runtime.body_budget:
                        raise crowded()
                    body += chunk
                    more = message["more_body"]
        except TimeoutError:
            raise ServingError(408, "the body came in too slowly", (CLOSING,)) from None
        finally:
            runtime.body_bytes -= size
        return body

    async def _other(
        self, route: Route, headers: dict[bytes, bytes], receive: Any, request_id: bytes
    ) -> tuple[int, Headers, bytes]:
        runtime = self.runtime
        mine = (b"x-request-id", request_id)
        if route.kind in ("model", "model-ready", "config"):
            endpoint = self.wire.dataplane.endpoint(route.model, headers.get(b"authorization"))
            status, body, more = discovery.answer_model(route, endpoint)
        elif route.kind == "index":
            asked = await self._body(headers, receive)
            status, body, more = discovery.answer_index(runtime, headers.get(b"authorization"), asked)
        elif route.kind in ("stats", "all-stats"):
            if route.kind == "stats":
                self.wire.dataplane.endpoint(route.model, headers.get(b"authorization"))
            status, body, more = await asyncio.to_thread(
                discovery.answer_statistics, route, runtime, headers.get(b"authorization"), runtime.snapshot()
            )
        elif route.kind == "read-only":
            raise ServingError(400, "this server's models are changed by deployments alone; loading is not offered")
        elif route.kind == "metrics":
            # Reading the other processes' files and rendering is work for a thread.
            snapshot = runtime.snapshot()
            text = await asyncio.to_thread(discovery.metrics_text, runtime.snapshots, snapshot)
            status, body, more = 200, text, (discovery.METRICS_TYPE,)
        else:
            status, body, more = discovery.answer_server(route, runtime)
        return status, (*more, mine), body


def instance_name(started: float) -> str:
    """A name no other process has or had: host, process id, second of its start."""
    return f"{os.uname().nodename}-{os.getpid()}-{int(started)}"
