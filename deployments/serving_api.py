"""The inference servers' side: desired state by long poll, and artifacts by digest. Serving token only."""

from __future__ import annotations

import asyncio
import math
import re
import time
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from django.db import DatabaseError, close_old_connections
from django.http import FileResponse, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from deployments import desired
from deployments.models import DESIRED
from registry import storage
from registry.models import DIGEST, Artifact
from slipway.accounts.authentication import is_serving
from slipway.accounts.permissions import ServingPermission
from slipway.api import problems
from slipway.api.problems import Problem

LONGEST_WAIT = 25.0
_PERIOD = 0.25


class _Watch:
    """One look at the generation per period, however many servers wait for it to change."""

    def __init__(self) -> None:
        self._seen = -1
        self._at = 0.0
        self._lock: asyncio.Lock | None = None

    async def generation(self) -> int:
        """The generation, at most one period old."""
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            if time.monotonic() - self._at >= _PERIOD:
                self._seen = await sync_to_async(_generation, thread_sensitive=False)()
                self._at = time.monotonic()
            return self._seen


def _generation() -> int:
    close_old_connections()
    return desired.generation()


def _document() -> dict[str, Any]:
    close_old_connections()
    return desired.document()


watch = _Watch()


@require_GET
async def state(request: HttpRequest) -> HttpResponse:
    """304 while the generation is the one in If-None-Match, else the document."""
    if not is_serving(request.headers.get("Authorization", "")):
        return problems.response(request, 401, "This needs the serving token.", "not_authenticated")
    try:
        wait = float(request.GET.get("wait", "0"))
    except ValueError:
        wait = math.nan
    if math.isnan(wait):
        return problems.response(request, 400, "wait must be a number of seconds.", "invalid")
    known = request.headers.get("If-None-Match", "")
    deadline = time.monotonic() + min(max(wait, 0.0), LONGEST_WAIT)
    try:
        while known == f'"{await watch.generation()}"':
            if time.monotonic() >= deadline:
                return HttpResponse(status=304, headers={"ETag": known})
            await asyncio.sleep(_PERIOD)
        document = await sync_to_async(_document, thread_sensitive=False)()
    except DatabaseError:
        return problems.response(request, 503, "The database does not answer.", "database_away")
    return HttpResponse(
        orjson.dumps(document),
        content_type="application/json",
        headers={"ETag": f'"{document["generation"]}"', "Cache-Control": "no-store"},
    )


class ServingArtifact(APIView):
    """Bytes of an artifact that some endpoint should serve."""

    authentication_classes: list[Any] = []
    permission_classes = [ServingPermission]

    @extend_schema(operation_id="serving_artifact", responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: Request, sha256: str) -> FileResponse:
        artifact = None
        if re.fullmatch(DIGEST, sha256):
            artifact = Artifact.objects.filter(sha256=sha256, deployments__state__in=DESIRED).first()
        if artifact is None:
            raise Problem("No endpoint serves an artifact with this digest.", status=404, code="not_found")
        path = storage.fetch_file(artifact.uri, sha256=artifact.sha256, size_limit=artifact.size)
        return FileResponse(path.open("rb"), content_type="application/octet-stream")
