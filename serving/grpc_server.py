"""gRPC's door of one serving process: `inference.GRPCInferenceService` on grpc.aio, in the process's event loop.

Imported in the children only: gRPC starts threads, which a fork would lose. Messages pass as bytes; an inference is
read by the dataplane, where its size decides which thread does it. Every method is declared as one that streams its
requests, so that the handler runs, and the clock ticks, before the message is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc import StatusCode

from serving.grpc_answers import ANSWERS
from serving.grpc_call import GrpcCall, Metadata
from serving.grpc_goodbye import ask_to_leave, stop_listening
from serving.grpc_options import CODES, MAX_CALLS, core_options
from serving.protocol.errors import ServingError
from serving.protocol.grpc_tensors import stream_answer
from serving.protocol.protobuf import SERVICE
from serving.slow import body_seconds
from serving.wire import Wire

log = logging.getLogger("serving.grpc")

# Requests of one stream under way at once; their answers keep its order.
PIPELINE = 16
# A message that is still coming in after so many seconds is a slow one; no more than so many are let in at once,
# since what has come of them takes memory that is not seen here.
SLOW_S, MAX_SLOW = 2.0, 32
# How long clients take to hear that they are to leave, and for what they sent meanwhile to arrive.
LEAVE_S = 0.15
# The answer's parts that HTTP has as headers.
_PASSED = (b"retry-after", b"www-authenticate", b"x-slipway-deployment")


class Door(grpc.GenericRpcHandler):
    """One per process."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.runtime = wire.runtime
        self._loop = asyncio.get_running_loop()
        self._server: Any = None
        self._port = 0
        self._reading: dict[asyncio.Task[Any], float] = {}  # since when each waits for its message
        self._slow: set[asyncio.Task[Any]] = set()
        self._streams: set[asyncio.Task[None]] = set()
        self._patience = body_seconds(self.runtime.options.max_body)
        self._watch: asyncio.Task[None] | None = None
        prefix = f"/{SERVICE}/"
        self._methods = {
            prefix + "ModelInfer": grpc.stream_unary_rpc_method_handler(self._infer),
            prefix + "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream),
        }
        for name, answer in ANSWERS.items():
            path = name if name.startswith("/") else prefix + name
            self._methods[path] = grpc.stream_unary_rpc_method_handler(self._plain(answer))

    def service(self, details: Any) -> Any:
        """gRPC's question for a method's handler; None says that there is no such method."""
        return self._methods.get(details.method)

    async def start(self, host: str, port: int) -> None:
        """Listen beside the other processes. Raises RuntimeError when the port cannot be had."""
        self._server = grpc.aio.server(
            handlers=[self], options=core_options(self.runtime.options.max_body), maximum_concurrent_rpcs=MAX_CALLS
        )
        self._port = port
        self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        await self._server.start()
        self._watch = self._loop.create_task(self._look())

    async def stop(self, grace: float) -> None:
        """Send clients elsewhere, take no new calls, answer those that are here, and return."""
        stop_listening(self._port)
        # Twice, for those that were still being accepted, or answered, at first.
        for _ in range(2):
            ask_to_leave(self._port)
            await asyncio.sleep(LEAVE_S)
        for reader in self._streams:
            reader.cancel()
        # Its own limit, after which it cancels what is left, is not one for its threads.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.stop(grace), grace + 1)
        if self._watch is not None:
            self._watch.cancel()

    # -- one request, one answer -----------------------------------------------------------------

    async def _infer(self, _: Any, context: Any) -> bytes:
        metadata: Metadata = dict(context.invocation_metadata())
        request_id = self._request_id(metadata)
        call: GrpcCall | None = None
        try:
            body = await self._read(context)
            call = await self._ask(metadata, body)
        except asyncio.CancelledError:
            self._count(call, 499)
            raise
        except ServingError as error:
            self._count(None, error.status)
            return await self._refuse(context, error, request_id)
        if call.error is not None:
            self._count(call, call.error.status)
            return await self._refuse(context, call.error, request_id)
        self._count(call, 200)
        deployment, encoded = call.deployment, call.answer
        assert deployment is not None
        context.set_trailing_metadata((("x-slipway-deployment", deployment.id), ("x-request-id", request_id)))
        result: bytes = encoded
        return result

    def _ask(self, metadata: Metadata, body: bytes) -> asyncio.Future[GrpcCall]:
        """Start a call; when it is over it has `answer` or `error`."""
        done: asyncio.Future[GrpcCall] = self._loop.create_future()

        def finish(call: GrpcCall) -> None:
            if not done.done():
                done.set_result(call)

        call = GrpcCall(metadata, body, finish)
        try:
            call.admit(self.wire.dataplane)
        except ServingError as error:
            call.error = error.with_traceback(None)
            call.forget()
            finish(call)
        else:
            self.wire.dataplane.infer(call)
        return done

    async def _read(self, context: Any) -> bytes:
        """The one message of a call. Raises ServingError: 400 without one, 408 when it is too slow."""
        task = asyncio.current_task()
        assert task is not None
        self._reading[task] = self._loop.time()
        try:
            body = await context.read()
        except asyncio.CancelledError:
            if task not in self._slow:
                raise
            task.uncancel()
            raise ServingError(408, "the message came in too slowly") from None
        finally:
            del self._reading[task]
            self._slow.discard(task)
        if body is grpc.aio.EOF:
            raise ServingError(400, "the call has no message")
        whole: bytes = body
        return whole

    async def _look(self) -> None:
        """Every second, end what comes in too slowly; the slowest first where there are too many."""
        while True:
            await asyncio.sleep(1)
            now = self._loop.time()
            late = [task for task, since in self._reading.items() if now - since > SLOW_S and task not in self._slow]
            for place, task in enumerate(reversed(late)):
                if place >= MAX_SLOW or now - self._reading[task] > self._patience:
                    self._slow.add(task)
                    task.cancel()

    def _plain(self, answer: Callable[..., Awaitable[bytes]]) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def handle(_: Any, context: Any) -> bytes:
            metadata: Metadata = dict(context.invocation_metadata())
            request_id = self._request_id(metadata)
            try:
                found = await answer(self.wire, await self._read(context), metadata)
            except ServingError as error:
                self._count(None, error.status)
                return await self._refuse(context, error, request_id)
            except Exception:
                reference = secrets.token_hex(4)
                log.exception("unexpected error (reference %s)", reference)
                self._count(None, 500)
                unknown = ServingError(500, f"unexpected error (reference {reference})")
                return await self._refuse(context, unknown, request_id)
            self._count(None, 200)
            context.set_trailing_metadata((("x-request-id", request_id),))
            return found

        return handle

    # -- many requests, many answers -------------------------------------------------------------

    async def _stream(self, _: Any, context: Any) -> None:
        metadata: Metadata = dict(context.invocation_metadata())
        request_id = self._request_id(metadata)
        asked: asyncio.Queue[asyncio.Future[GrpcCall] | None] = asyncio.Queue()
        places = asyncio.Semaphore(PIPELINE)
        reader = self._loop.create_task(self._read_stream(context, metadata, asked, places))
        self._streams.add(reader)
        try:
            if self.runtime.draining:
                reader.cancel()
            while (done := await asked.get()) is not None:
                call = await done
                self._count(call, 200 if call.error is None else call.error.status)
                await context.write(stream_answer(call.answer, call.error, call.client_id, call.wants_final))
                places.release()
        finally:
            reader.cancel()
            self._streams.discard(reader)
        if self.runtime.draining:
            await self._refuse(context, ServingError(503, "the server is shutting down"), request_id)
        context.set_trailing_metadata((("x-request-id", request_id),))

    async def _read_stream(
        self, context: Any, metadata: Metadata, asked: asyncio.Queue[Any], places: asyncio.Semaphore
    ) -> None:
        try:
            while True:
                await places.acquire()
                body = await context.read()
                if body is grpc.aio.EOF:
                    return
                asked.put_nowait(self._ask(metadata, body))
        except asyncio.CancelledError:
            pass  # the stream is over, or the server is
        finally:
            asked.put_nowait(None)

    # -- answers ---------------------------------------------------------------------------------

    def _request_id(self, metadata: Metadata) -> str:
        given = metadata.get("x-request-id")
        return self.wire.ids.of(given.encode() if isinstance(given, str) else given).decode("ascii")

    def _count(self, call: GrpcCall | None, status: int) -> None:
        name = call.model_name if call is not None else ""
        self.runtime.responses[(name if name in self.runtime.table.endpoints else "", status)] += 1

    async def _refuse(self, context: Any, error: ServingError, request_id: str) -> bytes:
        told = tuple((key.decode(), value.decode()) for key, value in error.headers if key in _PASSED)
        code = CODES.get(error.status, StatusCode.INTERNAL)
        await context.abort(code, error.text, (*told, ("x-request-id", request_id)))
        return b""  # never reached: abort raises
