"""Errors as problem details (RFC 9457): `type`, `title`, `status`, `code`, `detail`, `errors[]`, `request_id`.

Services raise `Problem` (or one of its subclasses) with a text for people; anything else that escapes a
view is an unexpected error: the answer carries a reference, the log the traceback.
"""

from __future__ import annotations

import uuid
from typing import Any, TypeVar

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from pydantic import BaseModel
from pydantic import ValidationError as PydanticValidationError
from rest_framework import exceptions
from rest_framework.response import Response

from engine.errors import EngineError

log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/problem+json"
UNIQUE_VIOLATION = "23505"
TITLES = {
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    411: "Size is missing",
    412: "Changed by somebody else",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not valid",
    428: "If-Match is missing",
    429: "Too many requests",
    500: "Unexpected error",
    502: "A service behind Slipway failed",
    503: "Not available right now",
    507: "No room to store it",
}


class Problem(Exception):
    """An error whose text is for the user; `field` names the input at fault."""

    status = 422
    code = "invalid"

    def __init__(
        self, detail: str, *, code: str | None = None, field: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.field = field
        self.status = status or self.status


Shape = TypeVar("Shape", bound=BaseModel)


def validated(shape: type[Shape], given: Any, field: str) -> Shape:
    """`given` as a `shape`. Problem naming the first wrong part as `field.<part>`."""
    try:
        return shape.model_validate(given)
    except PydanticValidationError as error:
        first = error.errors()[0]
        where = ".".join([field, *(str(part) for part in first["loc"])])
        raise Problem(f"{where}: {first['msg']}.", field=where) from error


class Conflict(Problem):
    """The state does not allow this now."""

    status = 409
    code = "conflict"


class Unavailable(Problem):
    """Something Slipway depends on does not answer; trying again later may work."""

    status = 503
    code = "unavailable"


def body(
    status: int,
    detail: str,
    code: str,
    *,
    request_id: str = "",
    errors: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    """The JSON of one problem."""
    return {
        "type": f"urn:slipway:problem:{code}",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "code": code,
        "detail": detail,
        "errors": errors or [],
        "request_id": request_id,
    }


def response(request: HttpRequest | None, status: int, detail: str, code: str, **extra: Any) -> JsonResponse:
    """A problem outside of the REST framework (middleware, async views)."""
    answer = JsonResponse(
        body(status, detail, code, request_id=getattr(request, "request_id", ""), **extra), status=status
    )
    answer["Content-Type"] = CONTENT_TYPE
    if status in {429, 503}:
        answer["Retry-After"] = "5"
    return answer


def _flatten(detail: Any, path: str = "") -> list[dict[str, str]]:
    if isinstance(detail, dict):
        return [
            row
            for key, value in detail.items()
            for row in _flatten(value, path if key == "non_field_errors" else f"{path}.{key}".strip("."))
        ]
    if isinstance(detail, list):
        return [
            row
            for index, value in enumerate(detail)
            for row in _flatten(value, f"{path}.{index}" if isinstance(value, (dict, list)) else path)
        ]
    return [{"field": path, "message": str(detail), "code": getattr(detail, "code", "invalid")}]


def describe(error: Exception) -> tuple[int, str, str, list[dict[str, str]]] | None:
    """(status, detail, code, errors) of an exception that has a text for people; None for a bug."""
    if isinstance(error, Problem | EngineError):
        text = str(error)
        status = error.status if isinstance(error, Problem) else 422
        rows = [{"field": error.field, "message": text, "code": error.code}] if error.field else []
        return status, text, error.code, rows
    if isinstance(error, exceptions.ValidationError):
        rows = _flatten(error.detail)
        first = rows[0] if rows else {"field": "", "message": "Not valid."}
        text = f"{first['field']}: {first['message']}" if first["field"] else first["message"]
        return 422, text, "invalid", rows
    if isinstance(error, exceptions.ParseError):
        return 400, "The body is not valid JSON.", "parse_error", []
    if isinstance(error, exceptions.APIException):
        return error.status_code, str(error.detail), str(error.get_codes()), []
    if isinstance(error, DjangoValidationError):
        rows = _flatten(error.message_dict if hasattr(error, "error_dict") else error.messages)
        return 422, rows[0]["message"], "invalid", rows
    if isinstance(error, PydanticValidationError):
        rows = [
            {"field": ".".join(map(str, entry["loc"])), "message": entry["msg"], "code": entry["type"]}
            for entry in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        return 422, f"{rows[0]['field']}: {rows[0]['message']}".removeprefix(": "), "invalid", rows
    if isinstance(error, Http404):
        return 404, "There is nothing here, or it is not yours to see.", "not_found", []
    if isinstance(error, PermissionDenied):
        return 403, str(error) or "Your role does not allow this.", "permission_denied", []
    if isinstance(error, RequestDataTooBig):
        return 413, "The body is too large.", "too_large", []
    if isinstance(error, IntegrityError) and getattr(error.__cause__, "pgcode", "") == UNIQUE_VIOLATION:
        return 409, "Somebody else did the same at the same moment. Read it again.", "conflict", []
    if isinstance(error, OperationalError | InterfaceError):
        return 503, "The database does not answer. Try again in a few seconds.", "database_away", []
    return None


def handler(error: Exception, context: dict[str, Any]) -> Response:
    """The REST framework's exception handler."""
    request = context.get("request")
    request_id = getattr(getattr(request, "_request", request), "request_id", "")
    found = describe(error)
    if found is None:
        reference = request_id or uuid.uuid4().hex
        log.exception("unexpected_error", reference=reference)
        found = (500, f"Unexpected error. Reference {reference}.", "unexpected", [])
    status, text, code, rows = found
    headers = {}
    if isinstance(error, exceptions.APIException):
        if wait := getattr(error, "wait", None):
            headers["Retry-After"] = str(int(wait))
        if challenge := getattr(error, "auth_header", None):
            headers["WWW-Authenticate"] = challenge
    if status == 503:
        headers.setdefault("Retry-After", "5")
    return Response(
        body(status, text, code, request_id=request_id, errors=rows),
        status=status,
        headers=headers,
        content_type=CONTENT_TYPE,
    )
