"""How much of a deployment or of a token's allowance may be used at once: refused early, with when to return."""

from __future__ import annotations

import asyncio
import math
import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import Any

from serving.protocol.errors import ServingError


class Gate:
    """At most `concurrency + queue` calls of a deployment in this process, running and waiting together.

    It outlives routing tables, or each new one would let in as many again. `lane` is the queue of its calls, made
    by the dataplane, of whose runs no more than `concurrency` go on at once; `turns` is the same for calls that
    another server answers. A call cheap enough to run in the event loop is not counted among them."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self.concurrency = concurrency
        self.queue = queue
        self.lane: Any = None
        self.turns = asyncio.Semaphore(concurrency)
        self._inside = 0
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Take a place. Raises ServingError 503 with Retry-After when all are taken."""
        with self._lock:
            if self._inside >= self.concurrency + self.queue:
                raise ServingError(503, "this model has too many requests waiting", ((b"retry-after", b"1"),))
            self._inside += 1

    def leave(self) -> None:
        """Give the place back."""
        with self._lock:
            self._inside -= 1


# Theoretical arrival times of all quotas, one file for all processes of a server: slot = key, time.
_SLOT = struct.Struct("<Qd")
_SLOTS = 1 << 16


class Ledger:
    """Shared memory of quotas. Two processes that write one slot at the same moment may let one request more
    through; a lock for every request would cost more than that is worth."""

    def __init__(self, path: Path | None) -> None:
        size = _SLOT.size * _SLOTS
        if path is None:
            self._map = mmap.mmap(-1, size)
            return
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Taken now: on a disk that is full by then, writing to a hole of a mapped file kills the process.
            os.posix_fallocate(handle, 0, size)
            self._map = mmap.mmap(handle, size)
        finally:
            os.close(handle)

    def slot(self, key: bytes) -> int:
        """Offset of a key's slot, taken when it has none: open addressing over 8 bytes of the key."""
        number = int.from_bytes(key[:8], "little") or 1
        for step in range(_SLOTS):
            offset = (number + step) % _SLOTS * _SLOT.size
            held, _ = _SLOT.unpack_from(self._map, offset)
            if held == number:
                return offset
            if held == 0:
                _SLOT.pack_into(self._map, offset, number, 0.0)
                return offset
        raise ServingError(503, "too many quotas")

    def read(self, offset: int) -> float:
        """The time kept in a slot."""
        found: float = _SLOT.unpack_from(self._map, offset)[1]
        return found

    def write(self, offset: int, value: float) -> None:
        """Keep a time in a slot."""
        struct.pack_into("<d", self._map, offset + 8, value)


class Quota:
    """`rate` requests a second on average, `burst` at once, over all processes of this server.

    The generic cell rate algorithm (ITU-T I.371): one number per key, no timer."""

    def __init__(self, ledger: Ledger, key: bytes, rate: float, burst: int) -> None:
        self._ledger = ledger
        self._offset = ledger.slot(key)
        self._interval = 1.0 / rate
        self._tolerance = self._interval * (burst - 1)

    def take(self) -> None:
        """Count a request. Raises ServingError 429 with Retry-After when the allowance is used up."""
        # One clock for all processes: the machine's uptime.
        now = time.monotonic()
        due = max(self._ledger.read(self._offset), now)
        latest = now + self._tolerance + self._interval
        if due > latest:  # from when the quota was smaller: that would last too long
            due = latest
            self._ledger.write(self._offset, due)
        if due - now > self._tolerance + 1e-9:
            wait = max(1, math.ceil(due - self._tolerance - now))
            raise ServingError(429, "this token is over its quota of requests", ((b"retry-after", b"%d" % wait),))
        self._ledger.write(self._offset, due + self._interval)
