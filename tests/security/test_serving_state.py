"""The servers' long poll while the database is away."""

from __future__ import annotations

import asyncio

import pytest
from django.db import OperationalError
from django.test import AsyncClient

from deployments import serving_api


@pytest.mark.django_db(transaction=True)
def test_state_answers_503_when_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> int:
        raise OperationalError("gone")

    monkeypatch.setattr(serving_api, "is_serving", lambda header: True)
    monkeypatch.setattr(serving_api, "_generation", gone)
    monkeypatch.setattr(serving_api, "_document", gone)
    answer = asyncio.run(AsyncClient().get("/api/v1/serving/state"))  # type: ignore[arg-type]
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
