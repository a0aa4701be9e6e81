"""Passwords, with a limit on guessing: whoever fails again and again waits, longer each time.

Counted by account and address together, so that nobody locks another person out, and by address alone for
those who try many accounts. The counts live in the process: they need no table, and a restart forgives.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import structlog
from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

log = structlog.get_logger(__name__)

FREE = 5  # failures of one account from one address before it has to wait
FREE_ADDRESS = 50  # failures of one address, whatever the account
LONGEST = 300.0
FORGIVEN = 900.0  # a quiet quarter of an hour forgives everything
REMEMBERED = 10_000
# A password is meant to be expensive to check: a flood of them must not take every core and thread.
AT_ONCE = 3


@dataclass
class _Count:
    failures: int = 0
    last: float = 0.0

    def wait(self, free: int, now: float) -> float:
        """Seconds until the next try is looked at."""
        if self.failures < free or now - self.last > FORGIVEN:
            return 0.0
        return max(0.0, self.last + min(LONGEST, 2.0 ** min(self.failures - free + 1, 20)) - now)


class Guesses:
    """Failed tries of the last minutes."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, account: str, address: str) -> float:
        """How long this account must wait at this address, in seconds."""
        now = time.monotonic()
        with self._lock:
            one, all_ = self._counts.get((account, address)), self._counts.get(("", address))
        return max(one.wait(FREE, now) if one else 0.0, all_.wait(FREE_ADDRESS, now) if all_ else 0.0)

    def failed(self, account: str, address: str) -> None:
        now = time.monotonic()
        with self._lock:
            for key in ((account, address), ("", address)):
                count = self._counts.setdefault(key, _Count())
                count.failures = 1 if now - count.last > FORGIVEN else count.failures + 1
                count.last = now
                self._counts.move_to_end(key)
            while len(self._counts) > REMEMBERED:
                self._counts.popitem(last=False)

    def succeeded(self, account: str, address: str) -> None:
        with self._lock:
            self._counts.pop((account, address), None)


guesses = Guesses()
_turns = threading.BoundedSemaphore(AT_ONCE)


class Patient(ModelBackend):
    """Django's own check of a password, behind the limit. `request.sign_in_wait` says how long is to wait."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> Any:
        if request is None or username is None or password is None:
            return super().authenticate(request, username=username, password=password, **kwargs)
        account, address = username.casefold()[:150], str(request.META.get("REMOTE_ADDR", ""))
        if (wait := guesses.wait(account, address)) > 0:
            request.sign_in_wait = wait  # type: ignore[attr-defined]
            log.warning("sign_in_refused", account=account, address=address, wait=round(wait))
            raise PermissionDenied
        if not _turns.acquire(timeout=5):
            request.sign_in_wait = 5.0  # type: ignore[attr-defined]
            raise PermissionDenied
        try:
            user = super().authenticate(request, username=username, password=password, **kwargs)
        finally:
            _turns.release()
        if user is None:
            guesses.failed(account, address)
        else:
            guesses.succeeded(account, address)
        return user
