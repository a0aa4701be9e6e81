"""One whole Slipway for all tests that drive it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.e2e.person import WIDE, Person, chromium
from tests.e2e.stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Everything that `make up` starts, on free ports and in its own home."""
    running = Stack(SLIPWAY_LEASE_SECONDS="5")
    try:
        yield running.start()
    finally:
        running.remove()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def password(stack: Stack) -> str:
    return (stack.home / "secrets" / "admin-password").read_text().strip()


@pytest.fixture(scope="module")
def person(browser: Browser, stack: Stack, password: str) -> Iterator[Person]:
    context = browser.new_context(viewport=WIDE, locale="en-GB")
    someone = Person(context, stack)
    someone.sign_in(password)
    yield someone
    context.close()
