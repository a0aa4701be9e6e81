"""Kinds of work and the one task decorator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from slipway.celery import app

if TYPE_CHECKING:
    from slipway.jobs.context import JobContext
    from slipway.jobs.models import Job


@dataclass(frozen=True)
class Done:
    """The handler's end: a JSON result, and the writes that belong into the completing transaction.

    `commit` may return more of the result (ids of what it wrote).
    """

    result: dict[str, Any] = field(default_factory=dict)
    commit: Callable[[], dict[str, Any] | None] | None = None


@dataclass(frozen=True)
class Later:
    """Nothing to do right now: come again after `seconds`, and say why until then."""

    seconds: float
    reason: str


Handler = Callable[["JobContext", Any], "Done | Later"]
Ended = Callable[["Job"], None]


@dataclass(frozen=True)
class Kind:
    name: str
    queue: str
    label: Any
    params: type[BaseModel]
    handler: Handler
    ended: Ended | None = None

    @property
    def task_name(self) -> str:
        return f"{self.queue}.{self.name}"


_KINDS: dict[str, Kind] = {}


def job_kind(
    name: str, *, queue: str, params: type[BaseModel], label: Any = "", ended: Ended | None = None
) -> Callable[[Handler], Handler]:
    """Declares a kind of job: its queue, its parameters and the function that does it.

    `ended` is called in the transaction in which a job of this kind ends, however it ends: also when it was cancelled
    in its queue or given up by the sweep, where no handler runs.
    """

    def declare(handler: Handler) -> Handler:
        if name in _KINDS:
            raise ValueError(f"there are two job kinds named {name!r}")
        kind = _KINDS[name] = Kind(name, queue, label or name, params, handler, ended)

        def run(job_id: int) -> None:
            from slipway.jobs.kernel import execute

            execute(kind, job_id)

        app.task(run, name=kind.task_name)
        return handler

    return declare


def kind_of(name: str) -> Kind:
    """The declared kind; importing the task modules is the caller's business (Celery's, or the app's)."""
    return _KINDS[name]


def when_ended(job: Job) -> None:
    """Lets the job's kind know that it ended; a kind that this process does not know has nothing to say."""
    kind = _KINDS.get(job.kind)
    if kind is not None and kind.ended is not None:
        kind.ended(job)


def kinds() -> list[Kind]:
    return sorted(_KINDS.values(), key=lambda kind: kind.name)
