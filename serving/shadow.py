"""Copies of requests for shadow deployments: after the client's answer, bounded, and never in its way."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort

from serving.table import Deployment
from serving.telemetry import Recorder

log = logging.getLogger("serving.shadow")

MAX_WAITING = 64
MAX_BYTES = 64 << 20
# A copy that runs for longer is ended, and counts as failed.
MAX_RUN_S = 30.0


class _Worker:
    """One shadow's thread and what it is running."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self.waiting = 0
        self.gone = False
        self.since: float | None = None
        self.options = ort.RunOptions()

    def end_run(self) -> None:
        """Have ONNX Runtime end the present run at its next node."""
        self.options.terminate = True


class Mirror:
    """One thread per shadow deployment: a shadow that hangs fills its own queue and nothing else, and its thread
    ends with it.

    Beyond MAX_WAITING copies per shadow, or MAX_BYTES of tensors in all, a copy is dropped and counted."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._workers: dict[str, _Worker] = {}
        self._bytes = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Copies that wait or run, of all shadows that are there."""
        return sum(worker.waiting for worker in self._workers.values())

    def send(self, shadows: tuple[Deployment, ...], feeds: dict[str, np.ndarray]) -> None:
        """Queue a copy for each shadow; called by the event loop's thread after the answer left."""
        size = sum(array.nbytes for array in feeds.values())
        for shadow in shadows:
            worker = self._workers.get(shadow.id)
            if worker is None:
                worker = self._workers[shadow.id] = _Worker()
            if worker.waiting >= MAX_WAITING or self._bytes + size > MAX_BYTES:
                self.dropped += 1
                since = worker.since
                if since is not None and time.perf_counter() - since > MAX_RUN_S:
                    worker.end_run()
                continue
            worker.waiting += 1
            self._bytes += size
            worker.pool.submit(self._run, asyncio.get_running_loop(), worker, shadow, feeds, size)

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        worker: _Worker,
        shadow: Deployment,
        feeds: dict[str, np.ndarray],
        size: int,
    ) -> None:
        label: np.ndarray | None = None
        failed = False
        options = worker.options = ort.RunOptions()
        start = worker.since = time.perf_counter()
        # Copies for a shadow that was taken away meanwhile are not worth a run. Looked at after the options are in
        # place: whoever takes it away looks at them after saying so.
        model = None if worker.gone else shadow.model
        try:
            if model is not None:
                arrays = dict(zip(model.output_names, model.run(model.output_names, feeds, options), strict=True))
                label = arrays.get(model.label) if model.label else None
        except Exception as error:  # whatever a shadow does wrong is a number in its telemetry
            failed = True
            log.debug("shadow %s failed: %s", shadow.id, error)
        worker.since = None
        seconds = time.perf_counter() - start
        loop.call_soon_threadsafe(self._done, worker, shadow, seconds, failed, label, size)

    def _done(
        self, worker: _Worker, shadow: Deployment, seconds: float, failed: bool, label: np.ndarray | None, size: int
    ) -> None:
        worker.waiting -= 1
        self._bytes -= size
        if not worker.gone:
            self._recorder.copied(shadow, time.time(), seconds, failed, label)

    def forget(self, alive: set[str]) -> None:
        """Let go of the threads of shadows that are no longer there; what they run is ended."""
        for ident in [i for i in self._workers if i not in alive]:
            worker = self._workers.pop(ident)
            worker.gone = True
            worker.end_run()
            worker.pool.shutdown(wait=False)
