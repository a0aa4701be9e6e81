"""The one port: MLflow's proxy and the long-lived streams are asynchronous, everything else is WSGI.

Pages and the API run in a fixed set of threads that keep their database connections; Django's own ASGI
handler would open a connection per request, which costs more than most of our queries. Streams (events,
the servers' long poll) would hold such a thread for minutes, so they go to Django's ASGI handler. What may
hold a thread for long all the same (files in either direction, waiting for a job) has threads of its own,
so that pages answer however many of those there are.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "slipway.settings")

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

django_asgi = get_asgi_application()
django_wsgi = get_wsgi_application()

from slipway.environment import environment  # noqa: E402  (these need the app registry)
from slipway.mlflow_proxy import MlflowProxy  # noqa: E402
from slipway.patience import Memory, Threads, without_body  # noqa: E402

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

STREAMS = {"/events", "/api/v1/serving/state"}
_FILES = re.compile(r"/api/v1/(?:versions/upload|artifacts/\d+/content)|/jobs/\d+/log\.txt")
_JOB = re.compile(r"/api/v1/jobs/\d+")
_WAITING = re.compile(rb"(?:^|&)wait=[^&]*")
# How long a request waits here when every thread for waiting is taken; then it is answered at once.
CROWDED_SECONDS = 2.0

memory = Memory()
LIMIT = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
LARGEST_FILE = (environment.max_upload_mb + 1) * 1024 * 1024
pages = Threads(django_wsgi, workers=16, limit=LIMIT, memory=memory)
files = Threads(django_wsgi, workers=8, limit=LARGEST_FILE, memory=memory, streams=True)
waits = Threads(django_wsgi, workers=12, limit=LIMIT, memory=memory)
mlflow = MlflowProxy()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Routes by path before Django sees the request."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    if scope["type"] != "http":
        return
    path = scope["path"]
    if path == "/mlflow" or path.startswith("/mlflow/"):
        await mlflow(scope, receive, send)
    elif path in STREAMS:
        await django_asgi(scope, without_body(receive), send)
    elif _FILES.fullmatch(path):
        await files(scope, receive, send)
    elif _WAITING.search(scope["query_string"]) and _JOB.fullmatch(path):
        await _wait(scope, receive, send)
    else:
        await pages(scope, receive, send)


async def _wait(scope: Scope, receive: Receive, send: Send) -> None:
    """`?wait=`: when too many wait already, the job as it is now, a moment later; clients ask again."""
    if waits.busy < waits.workers:
        await waits(scope, receive, send)
        return
    await asyncio.sleep(CROWDED_SECONDS)
    await pages({**scope, "query_string": _WAITING.sub(b"", scope["query_string"])}, receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await mlflow.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
