"""Ticks: what beat asks for every few seconds. Beat itself decides nothing.

A tick runs under an advisory lock, so that any number of beats and workers do it one at a time; a tick
that finds the lock taken returns at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import structlog
from django.db import InterfaceError, OperationalError, connection

from slipway.api.problems import Unavailable
from slipway.celery import app

log = structlog.get_logger(__name__)


def tick(name: str, *, every: float) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Declares a function that beat asks for every `every` seconds, on the queue `tick`."""
    lock = int.from_bytes(hashlib.sha256(f"tick.{name}".encode()).digest()[:8], "big", signed=True)

    def declare(function: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_try_advisory_lock(%s)", [lock])
                    if not cursor.fetchone()[0]:
                        return
                try:
                    function()
                finally:
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT pg_advisory_unlock(%s)", [lock])
            except (OperationalError, InterfaceError, Unavailable) as error:
                # The next tick tries again; a session that died has dropped its lock.
                connection.close()
                log.warning("tick_waits", tick=name, error=str(error).splitlines()[0])

        task = app.task(run, name=f"tick.{name}")
        app.conf.beat_schedule = {
            **(app.conf.beat_schedule or {}),
            # A message that nobody took within two periods is worthless: the next one does the same.
            name: {"task": task.name, "schedule": every, "options": {"expires": every * 2}},
        }
        return function

    return declare
