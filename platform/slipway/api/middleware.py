"""Request ids, and a plain answer while the database is away."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

import structlog
from django.db import InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse
from django.middleware.gzip import GZipMiddleware
from django.shortcuts import render

from slipway.api import problems

log = structlog.get_logger(__name__)
_SAFE = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestId:
    """Takes a well-formed `X-Request-Id` over or makes one; it is in every log line and every answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request.request_id = given if _SAFE.fullmatch(given) else uuid.uuid4().hex
        # Read by django_structlog, which would give the log lines an id of their own.
        request.META["HTTP_X_REQUEST_ID"] = request.request_id
        structlog.contextvars.bind_contextvars(request_id=request.request_id)
        response = self.get_response(request)
        if request.path.startswith("/api/v1/") and response.status_code >= 400:
            response = as_problem(request, response)
        response["X-Request-Id"] = request.request_id
        return response


def as_problem(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """What Django itself refused (an address without a view, a bad host) as a problem like every other."""
    if response.get("Content-Type", "") == problems.CONTENT_TYPE:
        return response
    status = response.status_code
    title = problems.TITLES.get(status, response.reason_phrase)
    answer = problems.response(request, status, f"{title}.", title.lower().replace(" ", "_"))
    if "Allow" in response:
        answer["Allow"] = response["Allow"]
    return answer


class Gzip(GZipMiddleware):
    """Compresses texts. Streams of events must not wait in a compressor, and model files gain nothing.

    JSON with an entity tag stays as it is: a compressor has to weaken the tag, and `If-Match` wants a strong one.
    """

    TEXTS = ("text/html", "text/css", "text/javascript", "application/json", "image/svg+xml")

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        kind = response.get("Content-Type", "")
        if not kind.startswith(self.TEXTS) or (kind == "application/json" and response.has_header("ETag")):
            return response
        return super().process_response(request, response)


class DatabaseAway:
    """A page that meets a lost database says so with 503 instead of a traceback."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, OperationalError | InterfaceError):
            return None
        log.warning("database_away", error=str(error))
        connection.close()
        if request.path.startswith("/api/"):
            return problems.response(
                request, 503, "The database does not answer. Try again in a few seconds.", "database_away"
            )
        return render(request, "503.html", status=503, headers={"Retry-After": "5"})
