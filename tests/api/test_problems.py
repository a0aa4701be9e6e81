"""Which errors become problems."""

from __future__ import annotations

from django.db import IntegrityError

from slipway.api.problems import describe


def test_unknown_integrity_errors_stay_unexpected_when_they_are_bugs() -> None:
    assert describe(IntegrityError("null value")) is None
