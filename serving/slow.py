"""Limits on slow clients, looked at once a second for all connections instead of by a timer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

IDLE, READING_HEAD, READING_BODY, WORKING = range(4)

# Seconds a connection may rest between two requests, and may take for a request's head.
KEEP_ALIVE_S = 75.0
HEAD_S = 30.0
# A body may take this long, and a little more for each byte: who is slower holds memory for nothing.
BODY_S = 30.0
BODY_BYTES_PER_S = 256 << 10


def body_seconds(length: int) -> float:
    """How long a body of so many bytes may take."""
    return BODY_S + length / BODY_BYTES_PER_S


class Clock:
    """The event loop's time, at most a second old: exact enough for limits of many seconds, and free."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = loop.time()

    def tick(self) -> None:
        """Set the time anew."""
        self.now = self._loop.time()


async def watch(clock: Clock, connections: Iterable[Any]) -> None:
    """Every second, end what took too long; for ever."""
    while True:
        await asyncio.sleep(1)
        clock.tick()
        for connection in [c for c in connections if overdue(c, clock.now)]:
            connection.too_slow()


def overdue(connection: Any, now: float) -> bool:
    """Whether a connection has been in its present phase for too long."""
    phase = connection.phase
    if phase == WORKING:
        return False
    limit = KEEP_ALIVE_S if phase == IDLE else HEAD_S if phase == READING_HEAD else connection.allowed
    return bool(now - connection.since > limit)
