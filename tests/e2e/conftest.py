"""One whole Slipway for all tests that drive it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Everything that `make up` starts, on free ports and in its own home."""
    running = Stack(SLIPWAY_LEASE_SECONDS="5")
    try:
        yield running.start()
    finally:
        running.remove()
