"""`/healthz`: is this process up, and do the things it needs answer?"""

from __future__ import annotations

import redis
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse

from slipway import events


def healthz(request: HttpRequest) -> JsonResponse:
    """200 when the database answers. Redis is reported, but Slipway works on (slower) without it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        database = "ok"
    except DatabaseError:
        connection.close()
        database = "away"
    try:
        events.client().ping()
        doorbell = "ok"
    except redis.RedisError:
        doorbell = "away"
    return JsonResponse({"database": database, "redis": doorbell}, status=200 if database == "ok" else 503)
