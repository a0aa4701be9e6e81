"""JSON bodies: read up to a limit, and no deeper than the parser can follow."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from django.conf import settings
from rest_framework import parsers
from rest_framework.exceptions import ParseError

from slipway.api.problems import Problem


class JSONParser(parsers.JSONParser):
    """The framework's parser, which reads a body of any size and fails on one that is nested too deeply."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise Problem(f"A body has at most {limit // 1024**2} MB.", code="too_large", status=413)
        try:
            return super().parse(BytesIO(body), media_type, parser_context)
        except RecursionError:
            raise ParseError("The body is nested too deeply.") from None
