"""Copies of requests for shadow deployments: after the client's answer, bounded, and never in its way."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from serving.table import Deployment
from serving.telemetry import Recorder

log = logging.getLogger("serving.shadow")

MAX_WAITING = 64
MAX_BYTES = 64 << 20
# Copies of so long go to the thread together: waking it for each would have it fight for the interpreter's lock with
# the loop that answers.
HAND_OVER_S = 0.005
# A copy that runs for longer is ended, and counts as failed.
MAX_RUN_S = 30.0


@dataclass(frozen=True, slots=True)
class _Copy:
    shadow: Deployment
    feeds: dict[str, np.ndarray]
    size: int


@dataclass(frozen=True, slots=True)
class _Ran:
    copy: _Copy
    seconds: float
    failed: bool
    label: np.ndarray | None


class _Worker:
    """One shadow's thread, what it is running, and what it is given next."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self.waiting = 0
        self.gone = False
        self.since: float | None = None
        self.options = ort.RunOptions()
        self.next: list[_Copy] = []

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
            worker.next.append(_Copy(shadow, feeds, size))
            if len(worker.next) == 1:
                loop = asyncio.get_running_loop()
                loop.call_later(HAND_OVER_S, self._hand_over, loop, worker)

    def _hand_over(self, loop: asyncio.AbstractEventLoop, worker: _Worker) -> None:
        copies, worker.next = worker.next, []
        if worker.gone:
            self._done(worker, [_Ran(copy, 0.0, False, None) for copy in copies])
        else:
            worker.pool.submit(self._run_all, loop, worker, copies)

    def _run_all(self, loop: asyncio.AbstractEventLoop, worker: _Worker, copies: list[_Copy]) -> None:
        loop.call_soon_threadsafe(self._done, worker, [self._run(worker, copy) for copy in copies])

    def _run(self, worker: _Worker, copy: _Copy) -> _Ran:
        label: np.ndarray | None = None
        failed = False
        options = worker.options = ort.RunOptions()
        start = worker.since = time.perf_counter()
        # Copies for a shadow that was taken away meanwhile are not worth a run. Looked at after the options are in
        # place: whoever takes it away looks at them after saying so.
        model = None if worker.gone else copy.shadow.model
        try:
            if model is not None:
                found = model.run(model.output_names, copy.feeds, options)
                label = dict(zip(model.output_names, found, strict=True)).get(model.label) if model.label else None
        except Exception as error:  # whatever a shadow does wrong is a number in its telemetry
            failed = True
            log.debug("shadow %s failed: %s", copy.shadow.id, error)
        worker.since = None
        return _Ran(copy, time.perf_counter() - start, failed, label)

    def _done(self, worker: _Worker, ran: list[_Ran]) -> None:
        now = time.time()
        for one in ran:
            worker.waiting -= 1
            self._bytes -= one.copy.size
            if not worker.gone:
                self._recorder.copied(one.copy.shadow, now, one.seconds, one.failed, one.label)

    def forget(self, alive: set[str]) -> None:
        """Let go of the threads of shadows that are no longer there; what they run is ended."""
        for ident in [i for i in self._workers if i not in alive]:
            worker = self._workers.pop(ident)
            worker.gone = True
            worker.end_run()
            worker.pool.shutdown(wait=False)
