"""The one way of an inference through the server, whatever transport it came by.

infer: decode → route → limits → cache → run (in the event loop when that is cheaper than a thread) → count →
answer. Everything here runs in the event loop's thread but `_in_pool`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from functools import partial
from typing import Any

from serving.call import Call, ModelFailure
from serving.compute import Completions
from serving.guard import Guard
from serving.lane import Lane, kind_of, run_alone, run_some
from serving.protocol.errors import BadInput, ServingError, crowded
from serving.runtime import Runtime
from serving.table import Endpoint

log = logging.getLogger("serving.dataplane")

# From this many bytes on, parsing alone would hold up the event loop: it happens in the pool.
POOL_BODY = 64 << 10


class Dataplane:
    """One per process."""

    def __init__(self, runtime: Runtime, loop: asyncio.AbstractEventLoop) -> None:
        self.runtime = runtime
        self._loop = loop
        self._completions = Completions(loop, self._returned)
        self._at_hand: list[Call] = []
        self._guard = Guard()
        self._guard.start()
        self._forwarding: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()

    def endpoint(self, name: str, authorization: bytes | None) -> Endpoint:
        """The endpoint of a name that this caller may use. Raises ServingError (401, 403, 404, 503)."""
        endpoint = self.runtime.table.endpoints.get(name)
        if endpoint is None:
            if not self.runtime.loaded:
                raise ServingError(503, "the server is still loading its models", ((b"retry-after", b"1"),))
            raise ServingError(404, "there is no such model")
        endpoint.authorize(authorization)
        return endpoint

    def admit(self, name: str, authorization: bytes | None) -> Endpoint:
        """As `endpoint`, and take one request from the caller's quota. Raises ServingError 429 as well."""
        endpoint = self.runtime.table.endpoints.get(name)
        if endpoint is None:
            return self.endpoint(name, authorization)
        try:
            endpoint.admit(authorization)
        except ServingError as error:
            self.runtime.over_quota += error.status == 429
            raise
        return endpoint

    def infer(self, call: Call) -> None:
        """Take a call on; its `finish` is called before this returns or later."""
        runtime = self.runtime
        table = call.table = runtime.table
        table.inflight += 1
        call.start = time.perf_counter()
        size = call.size()
        if size >= POOL_BODY:
            # It counts against the budget until its call is done: it waits for a thread meanwhile.
            if runtime.body_bytes + size > runtime.body_budget:
                call.error = crowded()
                self._returned(call)
                return
            call.held = size
            runtime.body_bytes += size
            runtime.compute.submit(partial(self._in_pool, call))
            return
        try:
            call.decode()
            call.input_s = time.perf_counter() - call.start
            if not self._admit(call):
                if call.inline():
                    if call.batch_limit() > 1:
                        self._soon(call)
                        return
                    self._guard.inside = (call.start, call.model())
                    call.run()
                else:
                    self._lane(call).add(call)
                    return
        except ServingError as error:
            call.error = error
        except Exception as error:
            call.error = _unexpected(error)
        self._guard.inside = None
        self._returned(call)

    def _soon(self, call: Call) -> None:
        """Run a cheap call when the loop has read what else is there: what came in meanwhile shares its run."""
        self._at_hand.append(call)
        if len(self._at_hand) == 1:
            self._loop.call_soon(self._run_at_hand)

    def _run_at_hand(self) -> None:
        calls, self._at_hand = self._at_hand, []
        begun = time.perf_counter()
        groups: dict[tuple[Any, ...], list[Call]] = {}
        for call in calls:
            call.queue_s = begun - call.start - call.input_s
            groups.setdefault((id(call.deployment), *kind_of(call)), []).append(call)
        for group in groups.values():
            self._guard.inside = (time.perf_counter(), group[0].model())
            run_some(group)
        self._guard.inside = None
        for call in calls:
            self._returned(call)

    def _in_pool(self, call: Call) -> None:
        begun = time.perf_counter()
        call.queue_s = begun - call.start
        try:
            call.decode()
            call.input_s = time.perf_counter() - begun
            if not self._admit(call):
                if call.batch_limit() > 1 or call.gate is not None or call.model().compute is not None:
                    self._lane(call).add(call)
                    return
                run_alone(call)
        except ServingError as error:
            call.error = error.with_traceback(None)
        except Exception as error:
            call.error = _unexpected(error)
        self._completions.put(call)

    def _admit(self, call: Call) -> bool:
        """Limits and cache of the picked deployment; whether the call needs no run here. Raises ServingError."""
        deployment = call.deployment
        if deployment is None:
            return True
        gate = deployment.gate
        if gate is not None:
            gate.enter()
            call.gate = gate
        if deployment.upstream is not None:
            return True
        cache = call.endpoint.cache
        if cache is None:
            return False
        call.cache_key = cache.key(deployment.cache_id, call.asked, call.feeds)
        held = cache.get(call.cache_key)
        if held is None:
            return False
        call.cached = True
        call.cache_key = None  # it is there already
        call.complete(held)
        return True

    def _lane(self, call: Call) -> Lane:
        """The queue of a call: of its gate where there is one, so that no other deployment's calls stand in it."""
        holder = call.gate if call.gate is not None else call.model()
        lane: Lane | None = holder.lane
        if lane is None:
            with self._lock:  # loop and pool may both be first
                lane = holder.lane
                if lane is None:
                    limit = call.gate.concurrency if call.gate is not None else None
                    compute = call.model().compute or self.runtime.compute
                    lane = holder.lane = Lane(compute, self._completions, limit)
        return lane

    def _returned(self, call: Call) -> None:
        if call.answer is None and call.error is None:
            task = self._loop.create_task(self._forward(call))
            self._forwarding.add(task)
            task.add_done_callback(self._forwarding.discard)
            return
        runtime = self.runtime
        assert call.table is not None
        call.table.inflight -= 1
        runtime.body_bytes -= call.held
        if call.gate is not None:
            call.gate.leave()
        self._count(call)
        call.finish(call)
        shadows = call.endpoint.shadows
        if shadows and call.error is None and call.feeds:
            runtime.mirror.send(shadows, call.feeds)
        call.forget()

    async def _forward(self, call: Call) -> None:
        deployment = call.deployment
        assert deployment is not None and deployment.upstream is not None
        begun = time.perf_counter()
        try:
            if call.gate is None:
                call.answer = await call.forward(deployment.upstream)
            else:
                async with call.gate.turns:
                    call.queue_s += time.perf_counter() - begun
                    begun = time.perf_counter()
                    call.answer = await call.forward(deployment.upstream)
        except ServingError as error:
            call.error = error.with_traceback(None)
        except Exception as error:
            call.error = _unexpected(error)
        call.compute_s = time.perf_counter() - begun
        self._returned(call)

    def _count(self, call: Call) -> None:
        deployment, error = call.deployment, call.error
        recorder = self.runtime.recorder
        if error is None:
            if deployment is not None:
                recorder.record(deployment, time.time(), time.perf_counter() - call.start, call)
            return
        if deployment is None:
            return
        if isinstance(error, BadInput | ModelFailure):
            if deployment.blame_input or isinstance(error, ModelFailure):
                recorder.record(deployment, time.time(), time.perf_counter() - call.start, call)
        elif error.status in (429, 503):
            recorder.reject(deployment, time.time())
        error.headers = (*error.headers, deployment.header)


def _unexpected(error: Exception) -> ServingError:
    reference = secrets.token_hex(4)
    log.error("unexpected error (reference %s)", reference, exc_info=error)
    return ServingError(500, f"unexpected error (reference {reference})")
