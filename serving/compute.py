"""Threads that run models, as wide as the machine: connections spread unevenly over the processes.

Leaner than concurrent.futures: a job is a plain callable, and what is done comes back to the event loop in one
wake-up for all that piled up.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

log = logging.getLogger("serving.compute")

Job = Callable[[], None]


class Compute:
    """`width` daemon threads with one first-in-first-out queue."""

    def __init__(self, width: int, name: str = "compute") -> None:
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self.width = width
        for number in range(width):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def submit(self, job: Job) -> None:
        """Run a job in one of the threads. The job handles its own errors."""
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except Exception:  # a thread must outlive whatever a job missed
                log.exception("a compute job failed")
            finally:
                del job  # an idle thread must not keep the last request alive


class Completions:
    """Hands finished items from any thread to the event loop, with one wake-up for a run of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Callable[[Any], None]) -> None:
        self._loop = loop
        self._handle = handle
        self._done: deque[Any] = deque()
        self._woken = False

    def put(self, *items: Any) -> None:
        """Called by a worker: the items will be handled in the loop's thread, in this order."""
        self._done.extend(items)
        # Set after appending, cleared before taking: an item is never left behind without a wake-up.
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._woken = False
        done = self._done
        while done:
            self._handle(done.popleft())
