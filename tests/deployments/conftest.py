"""An endpoint that serves version 1, and the means to fabricate what servers report."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from deployments import services
from deployments.evidence import Observed
from deployments.models import Deployment, DesiredState, Endpoint, Rollout, Server
from deployments.rollouts import rollout_advance, rollout_start
from monitoring.models import Window
from monitoring.stats import step_counts
from registry.models import Artifact
from tests.api.tools import light_settings as light_settings


@pytest.fixture(autouse=True)
def generation_row(db: None) -> None:
    """The row that the migration made; tests with real transactions empty every table."""
    DesiredState.objects.get_or_create(pk=1, defaults={"generation": 1})


@pytest.fixture
def artifacts(new_version: Callable[..., Any]) -> list[Artifact]:
    """The ONNX artifacts of versions 1, 2 and 3."""
    return [new_version().artifacts.get() for _ in range(3)]


@pytest.fixture
def endpoint(project: Any, artifacts: list[Artifact]) -> Endpoint:
    return services.endpoint_create(actor=None, project=project, name="digits", access="open", artifact=artifacts[0])


@pytest.fixture
def rollout(endpoint: Endpoint, artifacts: list[Artifact]) -> Rollout:
    """A canary of 10, 50 and 100 percent to version 2: 60 s and 50 requests a step."""
    return rollout_start(actor=None, endpoint=endpoint, artifact=artifacts[1])


def weights(endpoint: Endpoint) -> dict[int, int]:
    """{version number: weight} of what is not retired."""
    rows = endpoint.deployments.exclude(state="retired").select_related("artifact__version")
    return {row.artifact.version.number: row.weight for row in rows}


def ready(*deployments: Deployment, process: int = 0, state: str = "ready", reason: str = "", age: float = 0) -> Server:
    """A server process reports these deployments."""
    server, _ = Server.objects.update_or_create(
        instance=f"host-{process}",
        defaults={
            "process": process,
            "deployments": {str(row.pk): {"state": state, "reason": reason} for row in deployments},
            "seen_at": timezone.now() - dt.timedelta(seconds=age),
        },
    )
    return server


def passed(rollout: Rollout, seconds: float) -> None:
    """The current step began that long ago (and servers still report)."""
    Rollout.objects.filter(pk=rollout.pk).update(step_started_at=timezone.now() - dt.timedelta(seconds=seconds))
    Server.objects.update(seen_at=timezone.now())


def traffic(deployment: Deployment, requests: int, errors: int = 0, ago: float = 5) -> None:
    """A window of requests."""
    epoch = int(timezone.now().timestamp() - ago) // 5 * 5
    Window.objects.create(
        deployment=deployment, start=dt.datetime.fromtimestamp(epoch, dt.UTC), requests=requests, errors=errors,
        latency={"87": requests},
    )  # fmt: skip


def advance(rollout: Rollout) -> Rollout:
    """One look of the reconciler, as the worker does it."""
    row = Rollout.objects.get(pk=rollout.pk)
    observed = step_counts(deployment_ids=[row.stable_id, row.candidate_id], step_started_at=row.step_started_at)
    rollout_advance(rollout_id=row.pk, observed=Observed(row.step_started_at, observed))
    return Rollout.objects.get(pk=rollout.pk)


def started(rollout: Rollout) -> Rollout:
    """The rollout in its first step: every server has the candidate."""
    ready(rollout.stable, rollout.candidate)
    row = advance(rollout)
    assert (row.state, row.step) == ("progressing", 0) and row.step_started_at
    return row
