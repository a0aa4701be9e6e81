"""Named places where a test can make a worker die, fail or wait.

`SLIPWAY_FAILPOINT="export.convert=kill"`; also `raise`, `sleep:SECONDS` and `kill-once:FILE` (kills only
while FILE is absent, then creates it). Off unless the variable names a point.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from slipway.environment import environment


def _actions(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


_ACTIONS = _actions(environment.failpoint)


def reached(name: str) -> None:
    """Does what the environment asks for at this point; normally nothing."""
    action = _ACTIONS.get(name)
    if action is None:
        return
    verb, _, argument = action.partition(":")
    if verb == "kill-once":
        marker = Path(argument)
        if marker.exists():
            return
        marker.touch()
    if verb in {"kill", "kill-once"}:
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "sleep":
        time.sleep(float(argument))
    elif verb == "raise":
        raise RuntimeError(f"failpoint {name}")
