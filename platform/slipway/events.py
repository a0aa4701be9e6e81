"""The doorbell for browsers: "something about job 12 of project 3 changed", and nothing more.

Redis carries it; a page that hears it reads the database again. A lost ring costs a few seconds, because
pages also ask on their own, so failing to ring never fails the work.
"""

from __future__ import annotations

import threading
import time

import orjson
import redis
import structlog
from django.conf import settings
from django.db import transaction

log = structlog.get_logger(__name__)
_local = threading.local()
_QUIET_SECONDS = 5.0


def channel(project_id: int) -> str:
    """The Redis channel of one project."""
    return f"slipway:project:{project_id}"


def client() -> redis.Redis:
    """This thread's Redis connection."""
    if not hasattr(_local, "client"):
        _local.client = redis.Redis.from_url(
            settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=1, health_check_interval=30
        )
    return _local.client


def _send(project_id: int, topic: str, key: int | str) -> None:
    if time.monotonic() < getattr(_local, "quiet_until", 0.0):
        return
    try:
        client().publish(channel(project_id), orjson.dumps({"topic": topic, "id": key}))
    except redis.RedisError as error:
        # A deaf Redis would cost every log line its timeout: be quiet for a while instead.
        _local.quiet_until = time.monotonic() + _QUIET_SECONDS
        log.warning("doorbell_failed", error=str(error))


def ring(project_id: int, topic: str, key: int | str) -> None:
    """Rings after the current transaction commits (at once when there is none)."""
    transaction.on_commit(lambda: _send(project_id, topic, key), robust=True)
