"""Threads at once, and what every problem document must hold."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from slipway import paths

KEYS = {"type", "title", "status", "code", "detail", "errors", "request_id"}


@pytest.fixture(autouse=True)
def light_settings(settings: Any) -> None:
    """What would cost more than a test: a list of all static files for each client."""
    settings.WHITENOISE_AUTOREFRESH = True


def race(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Runs `work(0) … work(count - 1)` in threads that start together; what each returned or raised."""
    barrier, results = threading.Barrier(count), [None] * count

    def one(index: int) -> None:
        try:
            barrier.wait()
            results[index] = work(index)
        except Exception as error:
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def problem(answer: Any, status: int, code: str | None = None, field: str | None = None) -> dict[str, Any]:
    """The problem document of an answer, after checking its shape."""
    assert answer.status_code == status, (answer.status_code, answer.content[:500])
    assert answer.headers["Content-Type"] == "application/problem+json", answer.headers
    body = answer.json()
    assert set(body) == KEYS, body
    assert body["status"] == status and body["type"] == f"urn:slipway:problem:{body['code']}" and body["detail"]
    assert body["request_id"] and answer.headers["X-Request-Id"] == body["request_id"]
    assert (
        "Traceback" not in body["detail"]
        and str(paths.REPOSITORY) not in body["detail"]
        and "/tmp/" not in body["detail"]
    )
    if code is not None:
        assert body["code"] == code, body
    if field is not None:
        assert body["errors"] and body["errors"][0]["field"] == field, body
    return body
