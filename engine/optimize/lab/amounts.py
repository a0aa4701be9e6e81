"""How much to remove next: the largest share that quality bears, found by halving."""

from __future__ import annotations

NEAR = 0.07
MOST = 0.9
LEAST = 0.05
TRIES = 5


def following(outcomes: dict[float, bool], first: float = 0.5, near: float = NEAR, tries: int = TRIES) -> float | None:
    """The next share to try after `outcomes` (share → whether it was good enough), or None when the border is known to
    about `near`, or after `tries`."""
    if not outcomes:
        return first
    if len(outcomes) >= tries:
        return None
    good = max((share for share, well in outcomes.items() if well), default=0.0)
    bad = min((share for share, well in outcomes.items() if not well and share > good), default=None)
    following = round((good + (bad if bad is not None else MOST)) / 2, 2)
    if (bad if bad is not None else MOST) - good <= near or following < LEAST or following in outcomes:
        return None
    return following
