"""Limits on slow clients, looked at once a second for all connections instead of by a timer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

IDLE, READING_HEAD, READING_BODY, WORKING = range(4)

# A body may take a little more for each byte: who is slower holds memory for nothing.
BODY_BYTES_PER_S = 256 << 10
# The clock moves once in so many seconds: what began by it may have begun so much later, and gets so much longer.
TICK_S = 1.0


@dataclass(frozen=True)
class Limits:
    """Seconds a connection may rest between two requests, and seconds for a head, for a body beyond what its size
    needs, and for an answer that waits to be read."""

    keep_alive_s: float = 75.0
    read_s: float = 30.0

    def transfer(self, length: int) -> float:
        """How long so many bytes may take, either way."""
        return self.read_s + length / BODY_BYTES_PER_S

    def overdue(self, connection: Any, now: float) -> bool:
        """Whether a connection has been in its present phase for too long."""
        now -= TICK_S
        if connection.read_by is not None:  # an answer waits for its reader
            return bool(now > connection.read_by)
        phase = connection.phase
        if phase == WORKING:
            return False
        limit = self.keep_alive_s if phase == IDLE else self.read_s if phase == READING_HEAD else connection.allowed
        return bool(now - connection.since > limit)


def body_seconds(length: int) -> float:
    """How long a body of so many bytes may take where nothing else was said."""
    return Limits().transfer(length)


class Clock:
    """The event loop's time, at most a second old: exact enough for limits of many seconds, and free."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = loop.time()

    def tick(self) -> None:
        """Set the time anew."""
        self.now = self._loop.time()


async def watch(clock: Clock, limits: Limits, connections: Iterable[Any]) -> None:
    """Every second, end what took too long; for ever."""
    while True:
        await asyncio.sleep(TICK_S)
        clock.tick()
        for connection in [c for c in connections if limits.overdue(c, clock.now)]:
            connection.too_slow()
