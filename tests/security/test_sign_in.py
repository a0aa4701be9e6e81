"""Guessing passwords: it gets slower and slower, for the one who guesses only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.http import HttpResponse
from django.test import Client

from slipway.accounts import backends
from slipway.accounts.models import User


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(backends, "guesses", backends.Guesses())
    yield


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_superuser("ada", password="the right one")


def sign_in(password: str, *, name: str = "ada", address: str = "10.0.0.1", path: str = "/login/") -> HttpResponse:
    return Client(REMOTE_ADDR=address).post(path, {"username": name, "password": password})  # type: ignore[return-value]


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_guesser_waits_when_it_failed_too_often(ada: User, path: str) -> None:
    for number in range(backends.FREE):
        assert sign_in(f"wrong {number}", path=path).status_code == 200
    answer = sign_in("the right one", path=path)  # not even looked at
    assert answer.status_code == 200
    if path == "/login/":
        assert b"Too many failed attempts" in answer.content
    assert sign_in("the right one", address="10.0.0.2", path=path).status_code == 302  # she herself, elsewhere


def test_wait_grows_and_ends(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(backends.time, "monotonic", lambda: now[0])
    waits = []
    for _ in range(backends.FREE + 12):
        backends.guesses.failed("ada", "10.0.0.1")
        waits.append(backends.guesses.wait("ada", "10.0.0.1"))
    assert waits[: backends.FREE - 1] == [0.0] * (backends.FREE - 1)
    assert waits == sorted(waits) and waits[-1] == backends.LONGEST
    now[0] += backends.LONGEST + 1
    assert sign_in("the right one").status_code == 302
    assert backends.guesses.wait("ada", "10.0.0.1") == 0.0


def test_address_waits_when_it_tries_many_accounts(ada: User) -> None:
    for number in range(backends.FREE_ADDRESS):
        backends.guesses.failed(f"user{number}", "10.0.0.1")
    assert backends.guesses.wait("ada", "10.0.0.1") > 0
    assert backends.guesses.wait("ada", "10.0.0.2") == 0


def test_counts_stay_bounded_when_addresses_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "REMEMBERED", 100)
    for number in range(500):
        backends.guesses.failed("ada", f"10.0.{number // 256}.{number % 256}")
    assert len(backends.guesses._counts) <= 100
