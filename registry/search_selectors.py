"""Reads of searches: how one stands, and its trials in an order that a person asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.db.models.fields.json import KeyTextTransform
from django.shortcuts import get_object_or_404
from django.utils import timezone

from engine.optimize.lab.conclude import Conclusion, conclude
from engine.optimize.lab.promise import score
from registry.models import Artifact, Dataset
from registry.search_models import TRIAL_LIVE, Search, SearchTrial, TrialState
from slipway.accounts import policy
from slipway.jobs.models import State

_LAST = float("inf")
SORTS: dict[str, Callable[[SearchTrial], float]] = {
    "loss": lambda trial: trial.quality.loss if trial.quality else _LAST,
    "latency": lambda trial: trial.cost.ratio if trial.cost else _LAST,
    "size": lambda trial: trial.size or _LAST,
    "newest": lambda trial: -trial.pk,
}


@dataclass(frozen=True)
class Standing:
    """A search with its trials, and what they come to so far."""

    search: Search
    trials: list[SearchTrial]
    conclusion: Conclusion
    state: str
    seconds_left: float

    @property
    def counts(self) -> dict[str, int]:
        """Trials by state; "tried" are those that ended."""
        found = Counter(str(trial.state) for trial in self.trials)
        ended = sum(count for state, count in found.items() if state not in TRIAL_LIVE)
        return {"tried": ended, **{state: found.get(state, 0) for state in TrialState.values}}

    @property
    def recommended(self) -> SearchTrial | None:
        return next((trial for trial in self.trials if trial.key == self.conclusion.recommended), None)

    @property
    def offered(self) -> SearchTrial | None:
        return next((trial for trial in self.trials if trial.key == self.conclusion.offered), None)

    @property
    def nearest(self) -> list[SearchTrial]:
        by_key = {trial.key: trial for trial in self.trials}
        return [by_key[key] for key in self.conclusion.nearest if key in by_key]

    @property
    def ended(self) -> bool:
        return self.state not in (State.QUEUED, State.RUNNING)


def searches_visible(user: Any) -> QuerySet[Search]:
    """The searches of a person's projects, newest first, with what names them."""
    rows = Search.objects.select_related(
        "artifact__version__model__project", "dataset", "calibration", "training", "job", "created_by"
    )
    return policy.visible(user, rows).order_by("-pk")


def search_get(user: Any, pk: int) -> Search:
    """One search, or 404."""
    return get_object_or_404(searches_visible(user), pk=pk)


def searches_of(user: Any, artifacts: list[Artifact]) -> list[tuple[Search, SearchTrial | None]]:
    """The newest searches of a version's artifacts, each with the trial that it recommends."""
    rows = list(searches_visible(user).filter(artifact__in=artifacts)[:20])
    best = SearchTrial.objects.filter(search__in=rows, key=KeyTextTransform("recommended", "search__conclusion"))
    by_search = {trial.search_id: trial for trial in best}
    return [(row, by_search.get(row.pk)) for row in rows]


def standing_of(search: Search) -> Standing:
    """How a search stands: its own conclusion, or while it runs what the trials so far come to."""
    trials = list(search.trials.select_related("artifact", "job").order_by("pk"))
    for trial in trials:
        trial.search = search
    left = (search.deadline - timezone.now()).total_seconds() if search.deadline else 60 * search.asked.minutes
    return Standing(search, trials, _conclusion(search, trials), state_of(search), max(0.0, left))


def state_of(search: Search) -> str:
    """Of its job; between two trials it waits in the queue, which is still running to a person."""
    if search.job is None:
        return str(State.FAILED)
    if search.job.state == State.QUEUED and search.deadline is not None and search.stopped_at is None:
        return str(State.RUNNING)
    return str(search.job.state)


def _conclusion(search: Search, trials: list[SearchTrial]) -> Conclusion:
    if (found := search.found) is not None:
        return found
    ended = [trial.as_trial() for trial in trials if trial.state not in TRIAL_LIVE]
    return conclude(search.asked, search.base, ended) if search.base and ended else Conclusion()


def trials_sorted(standing: Standing, *, state: str = "", sort: str = "") -> list[SearchTrial]:
    """Filtered by state; in the order asked for, or the recommended first, then by how good they are for the goal."""
    rows = [trial for trial in standing.trials if state not in TrialState.values or trial.state == state]
    if sort in SORTS:
        return sorted(rows, key=SORTS[sort])
    return sorted(rows, key=lambda trial: _rank(standing, trial))


def _rank(standing: Standing, trial: SearchTrial) -> tuple[Any, ...]:
    found, base = standing.conclusion, standing.search.base
    cost = trial.cost
    good = score(standing.search.asked, cost, base) if cost and base else _LAST
    states = [*TRIAL_LIVE, TrialState.MEASURED, TrialState.REFUSED, TrialState.FAILED, TrialState.CANCELLED]
    place = -1 if trial.key == found.recommended else states.index(TrialState(trial.state))
    return (place, trial.key not in found.front, good, trial.pk)


def teaching_sets(user: Any, search_of: Artifact) -> QuerySet[Dataset]:
    """Data sets of the artifact's project, newest first."""
    project = search_of.version.model.project_id
    return policy.visible(user, Dataset.objects.filter(project=project)).order_by("-pk")
