"""What the reconciler knows of a step, and what follows from it.

This is the hard guard only. The statistical guards of the design (anytime-valid tests) judge the same
`Observed` numbers and add their rows to `guards`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils import timezone

from deployments.models import Rollout, RolloutState
from engine.formats.latency import quantile


@dataclass(frozen=True)
class Counts:
    """One deployment since the step began."""

    requests: int = 0
    errors: int = 0
    latency: Mapping[str, int] = field(default_factory=dict)

    @property
    def error_share(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    def as_json(self) -> dict[str, Any]:
        p95 = quantile(self.latency, 0.95)
        return {
            "requests": self.requests,
            "errors": self.errors,
            "p95_ms": None if p95 is None else round(p95 / 1000, 3),
        }


@dataclass(frozen=True)
class Observed:
    """Counts per deployment id since `since`, the start of the step they were read for."""

    since: dt.datetime | None
    counts: Mapping[int, Counts]


@dataclass(frozen=True)
class Judgement:
    """The verdict on a step at this moment."""

    stable: Counts
    candidate: Counts
    seconds: float
    enough: bool
    overdue: bool
    burst: str
    guards: list[dict[str, Any]]
    observed: dict[str, int]

    @property
    def summary(self) -> str:
        errors = f"{self.candidate.errors} of {self.candidate.requests} requests failed"
        return f"{errors} in {self.seconds:.0f} s"

    def as_json(self) -> dict[str, Any]:
        return {
            "stable": self.stable.as_json(),
            "candidate": self.candidate.as_json(),
            "seconds": round(self.seconds, 1),
            "guards": self.guards,
            "observed": self.observed,
        }


def judge(rollout: Rollout, observed: Observed) -> Judgement:
    """Judges the current step of a rollout on the counts since it began."""
    step, guard = rollout.steps[rollout.step], rollout.guard
    stable = observed.counts.get(rollout.stable_id, Counts())
    candidate = observed.counts.get(rollout.candidate_id, Counts())
    started = rollout.step_started_at
    seconds = (timezone.now() - started).total_seconds() if started else 0.0
    limit, share = guard["max_error_share"], candidate.error_share
    heard = candidate.requests >= guard["min_requests"]
    burst = ""
    if heard and share > limit:
        burst = (
            f"Error burst: {candidate.errors} of {candidate.requests} requests to the candidate failed "
            f"({share:.1%}, allowed {limit:.1%})."
        )
    enough = seconds >= step["min_seconds"] and candidate.requests >= step["min_requests"] and not burst
    return Judgement(
        stable=stable,
        candidate=candidate,
        seconds=seconds,
        enough=enough,
        overdue=seconds > step["max_seconds"] and rollout.state != RolloutState.BAKING,
        burst=burst,
        guards=[_error_row(stable, candidate, limit, heard, bool(burst))],
        observed={str(key): counts.requests for key, counts in observed.counts.items()},
    )


def _error_row(stable: Counts, candidate: Counts, limit: float, heard: bool, burst: bool) -> dict[str, Any]:
    """The guard as the evidence table shows it: position 0 is abort, 1 is promote."""
    margin = (limit - candidate.error_share) / limit if limit else float(candidate.errors == 0)
    return {
        "name": "error-burst",
        "label": "Error share",
        "stable": stable.error_share,
        "candidate": candidate.error_share,
        "limit": limit,
        "position": 0.0 if burst else (0.5 if not heard else max(0.0, min(1.0, 0.5 + margin / 2))),
        "verdict": "abort" if burst else ("promote" if heard else "too-few"),
    }
