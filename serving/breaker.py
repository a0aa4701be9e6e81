"""A circuit breaker: who fails again and again is left alone for a while."""

from __future__ import annotations

import time

from serving.call import ModelFailure

# After so many failures in a row an upstream is left alone for so long; then one request tries it.
BREAK_AFTER = 5
BREAK_S = 5.0
_AGAIN = ((b"retry-after", b"5"),)


class Breaker:
    """Closed until BREAK_AFTER failures in a row; open for BREAK_S; then one trial decides."""

    def __init__(self) -> None:
        self._failures = 0
        self._open_until = 0.0
        self._trying = False

    @property
    def open(self) -> bool:
        """Whether requests are refused just now."""
        return self._failures >= BREAK_AFTER and (self._trying or time.monotonic() < self._open_until)

    def enter(self) -> bool:
        """Whether this request is the trial, which `leave` has to be told. Raises ModelFailure 503 while open."""
        if self.open:
            raise ModelFailure(503, "the server behind this model does not answer", _AGAIN)
        self._trying = self._failures >= BREAK_AFTER
        return self._trying

    def leave(self, failed: bool, trial: bool) -> None:
        """Tell how it went. What began before the breaker opened does not end the trial."""
        if self._trying and not trial:
            return
        self._trying = False
        self._failures = self._failures + 1 if failed else 0
        if failed:
            self._open_until = time.monotonic() + BREAK_S
