"""The one port: MLflow's proxy and the long-lived streams are asynchronous, everything else is WSGI.

Pages and the API run in a fixed set of threads that keep their database connections; Django's own ASGI
handler would open a connection per request, which costs more than most of our queries. Streams (events,
the servers' long poll) would hold such a thread for minutes, so they go to Django's ASGI handler.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "slipway.settings")

from a2wsgi import WSGIMiddleware
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

django_asgi = get_asgi_application()
django_wsgi = get_wsgi_application()

from slipway.mlflow_proxy import MlflowProxy  # noqa: E402  (needs the app registry)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

STREAMS = ("/events", "/api/v1/serving/state", "/api/v1/jobs/events")
threads = WSGIMiddleware(django_wsgi, workers=16, send_queue_size=32)
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
    elif path.startswith(STREAMS):
        await django_asgi(scope, receive, send)
    else:
        await threads(scope, receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await mlflow.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
