"""kill -9 at every step of every kind of job: the next attempt resumes, and everything is there once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.chaos.victims import POINTS
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
ALL = [f"{kind}.{step}" for kind, steps in POINTS.items() for step in steps]
MEASURED = {"measure": 1, "optimize": 2}


@pytest.fixture(scope="module")
def outcomes(chaos_stack: Stack) -> dict[str, dict[str, Any]]:
    """{point: what became of the job that was killed there}."""
    said = chaos_stack.python("from tests.chaos.victims import main\nmain()", limit=500)
    return {row["point"]: row for row in json.loads(said.splitlines()[-1])}


def test_every_failpoint_is_hit_when_named(outcomes: dict[str, dict[str, Any]]) -> None:
    hit = [point for point, row in outcomes.items() if row["hit"]]
    print(f"\n{len(hit)} of {len(ALL)} failpoints hit")
    missed = [outcomes[point] for point in ALL if point not in hit]
    assert missed == []


@pytest.mark.parametrize("point", ALL)
def test_job_resumes_with_one_effect_when_killed(outcomes: dict[str, dict[str, Any]], point: str) -> None:
    row, kind = outcomes[point], point.partition(".")[0]
    assert row["state"] == "succeeded", row["reason"]
    assert row["attempt"] >= 2 and row["failures"] <= 1
    assert row["runs"] == (0 if kind in {"ingest", "rollout"} else 1)
    assert row["registered"] == (kind == "retrain")
    assert row["measurements"] == MEASURED.get(kind, 0)


def test_artifacts_are_there_once_when_their_jobs_were_killed(chaos_stack: Stack, outcomes: dict[str, Any]) -> None:
    assert outcomes
    doubled = chaos_stack.python(
        "from django.db.models import Count\nfrom registry.models import Artifact\n"
        "rows = Artifact.objects.values('version', 'format', 'recipe__exporter', 'recipe__optimizer')\n"
        "print(list(rows.annotate(n=Count('id')).filter(n__gt=1)))"
    )
    assert doubled.strip() == "[]"
