"""Query parameters, checked."""

from __future__ import annotations

from rest_framework.request import Request

from slipway.api.problems import Problem


def int_param(request: Request, name: str, *, default: int, low: int, high: int) -> int:
    """A whole number between `low` and `high` from the query string."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = int(float(text))
    except (ValueError, OverflowError):
        raise Problem(f"{name} must be a number.", field=name, status=400) from None
    if not low <= value <= high:
        raise Problem(f"{name} must be between {low} and {high}.", field=name, status=400)
    return value
