"""Copies of requests for shadow deployments: after the client's answer, bounded, and never in its way."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from serving.table import Deployment
from serving.telemetry import Recorder

log = logging.getLogger("serving.shadow")

MAX_WAITING = 64
MAX_BYTES = 64 << 20


class Mirror:
    """One thread per shadow deployment: a shadow that hangs fills its own queue and nothing else.

    Beyond MAX_WAITING copies per shadow, or MAX_BYTES of tensors in all, a copy is dropped and counted."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._waiting: dict[str, int] = {}
        self._bytes = 0
        self.dropped = 0

    def send(self, shadows: tuple[Deployment, ...], feeds: dict[str, np.ndarray]) -> None:
        """Queue a copy for each shadow; called by the event loop's thread after the answer left."""
        size = sum(array.nbytes for array in feeds.values())
        for shadow in shadows:
            waiting = self._waiting.get(shadow.id, 0)
            if waiting >= MAX_WAITING or self._bytes + size > MAX_BYTES:
                self.dropped += 1
                continue
            self._waiting[shadow.id] = waiting + 1
            self._bytes += size
            pool = self._pools.get(shadow.id)
            if pool is None:
                pool = self._pools[shadow.id] = ThreadPoolExecutor(1, thread_name_prefix="shadow")
            pool.submit(self._run, asyncio.get_running_loop(), shadow, feeds, size)

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        shadow: Deployment,
        feeds: dict[str, np.ndarray],
        size: int,
    ) -> None:
        start = time.perf_counter()
        label: np.ndarray | None = None
        failed = False
        # Copies for a shadow that was taken away meanwhile are not worth a run.
        model = shadow.model if shadow.id in self._pools else None
        try:
            if model is not None:
                arrays = dict(zip(model.output_names, model.run(model.output_names, feeds), strict=True))
                label = arrays.get(model.label) if model.label else None
        except Exception as error:  # whatever a shadow does wrong is a number in its telemetry
            failed = True
            log.debug("shadow %s failed: %s", shadow.id, error)
        seconds = time.perf_counter() - start
        loop.call_soon_threadsafe(self._done, shadow, seconds, failed, label, size)

    def _done(self, shadow: Deployment, seconds: float, failed: bool, label: np.ndarray | None, size: int) -> None:
        left = self._waiting[shadow.id] - 1
        if left:
            self._waiting[shadow.id] = left
        else:
            del self._waiting[shadow.id]
        self._bytes -= size
        if shadow.id in self._pools:
            self._recorder.copied(shadow, time.time(), seconds, failed, label)

    def forget(self, alive: set[str]) -> None:
        """Let go of the threads of shadows that are no longer there."""
        for ident in [i for i in self._pools if i not in alive]:
            self._pools.pop(ident).shutdown(wait=False, cancel_futures=False)
