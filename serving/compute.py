"""Threads that read large requests and run models.

A process has its share of the machine's cores for itself, and borrows more while other processes leave theirs
idle: connections spread unevenly, but two runs on one core only get in each other's way.

Leaner than concurrent.futures: a job is a plain callable, and what is done comes back to the event loop in one
wake-up for all that piled up.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import struct
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

log = logging.getLogger("serving.compute")

Job = Callable[[], None]
_SLOT = struct.Struct("<i")


class Cores:
    """How many cores each process uses now, in memory shared by all of them; made before the fork."""

    def __init__(self, count: int, processes: int) -> None:
        self.count = count
        self.share = max(1, count // processes)
        self._processes = processes
        self._map = mmap.mmap(-1, _SLOT.size * processes)

    def set(self, process: int, running: int) -> None:
        """Say how many runs a process has going; of a dead one nobody else would."""
        _SLOT.pack_into(self._map, process * _SLOT.size, running)

    def idle(self) -> bool:
        """Whether some core has no run."""
        return sum(_SLOT.unpack_from(self._map, i * _SLOT.size)[0] for i in range(self._processes)) < self.count


class Compute:
    """The compute threads of one process, with one first-in-first-out queue."""

    def __init__(self, cores: Cores, process: int) -> None:
        self._cores = cores
        self._process = process
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._calls: SimpleQueue[None] = SimpleQueue()  # to the spare threads
        self._running = 0
        self._lock = threading.Lock()
        self._spare = cores.count - cores.share
        cores.set(process, 0)
        for number in range(cores.count):
            work = self._work if number < cores.share else self._help
            threading.Thread(target=work, name=f"compute-{number}", daemon=True).start()

    def submit(self, job: Job) -> None:
        """Run a job in one of the threads. The job handles its own errors."""
        self._jobs.put(job)
        if self._running >= self._cores.share:
            self._call_help()

    def _call_help(self) -> None:
        """Wake a spare thread if a core is idle while jobs wait."""
        if self._spare and self._calls.empty() and not self._jobs.empty() and self._cores.idle():
            self._calls.put(None)

    def _work(self) -> None:
        while True:
            self._run(self._jobs.get())
            self._call_help()

    def _help(self) -> None:
        while True:
            self._calls.get()
            while self._cores.idle():
                try:
                    job = self._jobs.get_nowait()
                except Empty:
                    break
                self._run(job)
                del job

    def _run(self, job: Job) -> None:
        self._count(1)
        try:
            job()
        except Exception:  # a thread must outlive whatever a job missed
            log.exception("a compute job failed")
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._running += change
            self._cores.set(self._process, self._running)


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
        try:
            while done:
                self._handle(done.popleft())
        finally:
            if done and not self._woken:  # one that could not be handled must not keep the others waiting
                self._woken = True
                self._loop.call_soon(self._take)
