"""Plans of rollouts: what is refused before anything moves."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from deployments import rollouts
from deployments.models import Rollout, Server
from deployments.plans import plan_of
from slipway.api.problems import Problem
from tests.deployments.conftest import ready, started, weights

pytestmark = pytest.mark.django_db


CANARY = {"weight": 10}
FULL = {"mode": "full", "weight": 100}


@pytest.mark.parametrize(
    "steps",
    [
        [CANARY], [FULL, CANARY], [CANARY, CANARY, FULL], [{"weight": 0}, FULL], [{"weight": 101}],
        [{"weight": -5}, FULL], [{"weight": 10.5}, FULL], [{"weight": "10"}, FULL], [{"weight": float("nan")}, FULL],
        [{"weight": True}, FULL], [{**CANARY, "min_seconds": -1}, FULL],
        [{**CANARY, "min_seconds": float("nan")}, FULL],
        [{**CANARY, "max_seconds": float("inf")}, FULL], [{**CANARY, "max_seconds": 0}, FULL],
        [{**CANARY, "min_requests": -1}, FULL], [{**CANARY, "mode": "magic"}, FULL], [{**CANARY, "extra": 1}, FULL],
        [{}, FULL], [FULL] * 21, [{"weight": n} for n in range(1, 21)] + [FULL],
        [{**CANARY, "min_seconds": 100, "max_seconds": 50}, FULL],
    ],
)  # fmt: skip
def test_plan_is_refused_when_steps_are_bad(steps, endpoint, artifacts) -> None:
    with pytest.raises((ValidationError, Problem)):
        rollouts.rollout_start(actor=None, endpoint=endpoint, artifact=artifacts[1], steps=steps)
    assert not Rollout.objects.exists() and weights(endpoint) == {1: 100}


@pytest.mark.parametrize(
    "guard",
    [
        {}, {"max_error_share": 1}, {"max_error_share": -0.1}, {"max_error_share": float("nan")}, {"min_requests": 0},
        {"max_error_share": 2}, {"unknown": 1}, {"min_requests": "many"},
    ],
)  # fmt: skip
def test_plan_is_refused_when_guard_is_bad(guard) -> None:
    with pytest.raises((ValidationError, Problem)):
        plan_of(None, guard)


def test_empty_plan_is_refused_when_given() -> None:
    with pytest.raises((ValidationError, Problem)):
        plan_of([], None)


def test_plan_has_defaults_when_none_is_given() -> None:
    plan = plan_of(None, None)
    assert [step.weight for step in plan.steps] == [10, 50, 100] and plan.guard.max_error_share == 0.05


def test_servers_of_long_ago_are_not_waited_for_when_rolling_out(rollout) -> None:
    ready(rollout.stable, process=7, age=16)
    assert started(rollout).step == 0 and Server.objects.count() == 2
