"""Sends telemetry and the state of deployments to the control plane. Never in a request's way.

One batch is out at a time and is sent again with the same `seq` until it is accepted, so nothing is counted
twice; meanwhile counting goes on in the recorder's bounded windows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson

from serving import VERSION
from serving.agent import Agent
from serving.app import instance_name
from serving.control import Control, ControlError
from serving.model import resident_bytes
from serving.runtime import Runtime

log = logging.getLogger("serving.reporter")

BUSY_S = 1.0
IDLE_S = 5.0
MAX_BACKOFF_S = 15.0


class Reporter:
    """Runs in the event loop; only the HTTP call itself is in a thread of its own."""

    def __init__(self, runtime: Runtime, agent: Agent, control: Control) -> None:
        self.runtime = runtime
        self.agent = agent
        self.control = control
        self.instance = instance_name(runtime.started)
        self.seq = 0
        self._batch: bytes | None = None
        self._reported = -1
        self._last = time.monotonic()
        self._wake = asyncio.Event()
        agent.on_change = self._wake.set
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reporter")

    async def run(self) -> None:
        """Report for ever; cancelled at shutdown."""
        failures = 0
        while True:
            pause = BUSY_S
            if failures:
                ceiling = min(MAX_BACKOFF_S, BUSY_S * 2 ** min(failures - 1, 6))
                pause = random.uniform(ceiling / 2, ceiling)  # noqa: S311 - spreads the return
                await asyncio.sleep(pause)
            else:
                # A rollout waits for the news that a deployment is ready: that goes out at once.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
            self._wake.clear()
            failures = 0 if await self.step() else failures + 1

    async def flush(self, seconds: float) -> None:
        """Send what is left, for at most so long: the batch that is out, then the last windows."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if await self.step(force=True) and self.runtime.recorder.waiting:
                    await self.step(force=True)

    async def step(self, force: bool = False) -> bool:
        """Send what there is to send; whether the control plane took it (or there was nothing)."""
        if self._batch is None:
            now = time.monotonic()
            new = self.runtime.recorder.waiting or self.agent.changes != self._reported
            if not (new or force) and now - self._last < IDLE_S:
                return True
            self._batch = self._make(now)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self.control.report, self._batch)
        except ControlError as error:
            if not error.permanent:
                self.runtime.reports_failed += 1
                log.debug("%s", error)
                return False
            # It would be refused for ever and block everything behind it.
            self.runtime.reports_dropped += 1
            log.error("a report was dropped: %s", error)
        self._batch = None
        return True

    def _make(self, now: float) -> bytes:
        self.seq += 1
        self._reported = self.agent.changes
        interval, self._last = now - self._last, now
        payload: dict[str, Any] = {
            "instance": self.instance,
            "process": self.runtime.index,
            "seq": self.seq,
            "generation": self.agent.generation,
            "interval_s": round(interval, 3),
            "deployments": self.agent.status,
            "windows": self.runtime.recorder.take(),
            "memory_bytes": resident_bytes(),
            "pid": os.getpid(),
            "started": round(self.runtime.started, 3),
            "version": VERSION,
        }
        return orjson.dumps(payload)
