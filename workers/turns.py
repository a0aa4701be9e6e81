"""One measurement at a time on one machine: two side by side would each time the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from django.db import connection

from slipway.jobs.context import JobContext

LOOK_S = 0.2
_LOCK = "slipway.measure"


@cache
def machine() -> str:
    """What containers on one machine share, and two machines do not."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def measuring_alone(job: JobContext) -> Iterator[None]:
    """Waits for its turn. The lock is the database session's, so that a killed worker gives it back."""
    said = False
    while not _try("pg_try_advisory_lock"):
        if not said:
            job.log("Waits for another measurement on this machine to end.")
            said = True
        job.check()
        time.sleep(LOOK_S)
    try:
        yield
    finally:
        _try("pg_advisory_unlock")


def _try(function: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(hashtext(%s), hashtext(%s))", [_LOCK, machine()])
        return bool(cursor.fetchone()[0])
