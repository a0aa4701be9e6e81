"""A model's queue: requests that wait for a thread are run together, up to what measuring showed to help.

Nobody waits for a window: a thread that comes free takes what is there, one request or many.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import numpy as np

from serving.call import Call
from serving.compute import Completions, Compute
from serving.protocol.errors import ServingError


class Lane:
    """The calls of one model, or of one gate, on their way through the compute threads; no more than `most` runs
    go on at once."""

    def __init__(self, compute: Compute, completions: Completions, most: int | None = None) -> None:
        self._compute = compute
        self._completions = completions
        self._most = most
        self._waiting: deque[tuple[Call, float]] = deque()
        self._running = 0
        self._lock = threading.Lock()

    def add(self, call: Call) -> None:
        """Queue a decoded call; it comes back through the completions. From any thread."""
        with self._lock:
            self._waiting.append((call, time.perf_counter()))
        self._compute.submit(self._work)

    def _work(self) -> None:
        calls = self._take()
        if not calls:
            return  # an earlier thread took them along, or the deployment runs as many as it may
        if len(calls) == 1:
            run_alone(calls[0])
        else:
            run_together(calls)
        with self._lock:
            self._running -= 1
            left = bool(self._waiting) and self._most is not None
        self._completions.put(*calls)
        if left:  # its own turn may have found the limit reached: it must not be forgotten
            self._compute.submit(self._work)

    def _take(self) -> list[Call]:
        with self._lock:
            if not self._waiting:
                return []
            if self._most is not None and self._running >= self._most:
                return []
            self._running += 1
            now = time.perf_counter()
            call, since = self._waiting.popleft()
            call.queue_s += now - since
            taken = [call]
            limit = call.batch_limit()
            if limit > 1 and self._waiting:
                rows, kind, model = call.rows, kind_of(call), call.model()
                while self._waiting:
                    other, since = self._waiting[0]
                    if other.batch_limit() < limit or rows + other.rows > limit:
                        break
                    if other.model() is not model or kind_of(other) != kind:
                        break
                    self._waiting.popleft()
                    other.queue_s += now - since
                    rows += other.rows
                    taken.append(other)
            return taken


def kind_of(call: Call) -> tuple[Any, ...]:
    """Calls of the same kind fit into one run: same outputs, same inputs but for the number of rows."""
    return (tuple(call.asked), *[(name, array.shape[1:]) for name, array in call.feeds.items()])


def run_alone(call: Call) -> None:
    """Run one call; a refusal is kept in the call, without its traceback: raised across threads it would keep
    the parsed request, of any size, until the collector comes by."""
    try:
        call.run()
    except ServingError as error:
        call.error = error.with_traceback(None)
    except Exception as error:
        call.error = call.failure(error).with_traceback(None)


def run_some(calls: list[Call]) -> None:
    """Run calls of one deployment and kind, sharing runs as far as its limit goes."""
    limit = calls[0].batch_limit()
    part: list[Call] = []
    rows = 0
    for call in calls:
        if part and rows + call.rows > limit:
            run_together(part) if len(part) > 1 else run_alone(part[0])
            part, rows = [], 0
        part.append(call)
        rows += call.rows
    run_together(part) if len(part) > 1 else run_alone(part[0])


def run_together(calls: list[Call]) -> None:
    """Run calls of one kind as a single batch and give each its rows. A batch that fails is run one by one,
    so that a bad request fails alone."""
    first = calls[0]
    begun = time.perf_counter()
    try:
        feeds = {name: np.concatenate([call.feeds[name] for call in calls]) for name in first.feeds}
        arrays = first.model().run(first.asked, feeds)
        total = sum(call.rows for call in calls)
        if any(len(array) != total for array in arrays):
            raise ValueError("an output has no row for each input row")
    except Exception:
        for call in calls:
            run_alone(call)
        return
    taken = time.perf_counter() - begun
    at = 0
    for call in calls:
        call.compute_s = taken
        call.batch = len(calls) if call is first else 0
        try:
            call.complete([array[at : at + call.rows] for array in arrays])
        except Exception as error:  # the other calls' answers must not be lost by it
            call.error = call.failure(error).with_traceback(None)
        at += call.rows
