"""A rollout's plan: its steps and its guard, checked before anything moves."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from slipway.api.problems import Problem


class Step(BaseModel):
    """Hold `weight` percent on the candidate until time and requests suffice.

    Seconds are of this step. Inconclusive at `max_seconds` pauses and alerts; it never promotes.
    `gate` waits for a person.
    """

    model_config = ConfigDict(extra="forbid")

    mode: Literal["canary", "full"] = "canary"
    weight: int = Field(ge=1, le=100, strict=True)
    min_seconds: float = Field(default=30, ge=0, le=30 * 86400, allow_inf_nan=False)
    min_requests: int = Field(default=0, ge=0, le=10**9)
    max_seconds: float = Field(default=3600, gt=0, le=60 * 86400, allow_inf_nan=False)
    gate: bool = False

    @model_validator(mode="after")
    def _in_time(self) -> Step:
        if self.min_seconds > self.max_seconds:
            raise ValueError("min_seconds is beyond max_seconds: the step could only be held")
        return self


class Guard(BaseModel):
    """The hard guard: an error burst of the candidate returns all traffic at once.

    At least `min_requests` requests in this step, and more than `max_error_share` of them failed.
    """

    model_config = ConfigDict(extra="forbid")

    max_error_share: float = Field(default=0.05, ge=0, lt=1, allow_inf_nan=False)
    min_requests: int = Field(default=20, ge=1, le=10**6)


class Plan(BaseModel):
    """Steps with rising weights; the last one is 100 percent."""

    model_config = ConfigDict(extra="forbid")

    steps: list[Step] = Field(min_length=1, max_length=20)
    guard: Guard = Guard()

    @field_validator("steps")
    @classmethod
    def _rising(cls, steps: list[Step]) -> list[Step]:
        weights = [step.weight for step in steps]
        if weights != sorted(set(weights)):
            raise ValueError("the weights of the steps must rise")
        if weights[-1] != 100:
            raise ValueError("the last step must have the weight 100")
        if steps[-1].gate:
            raise ValueError("after the last step there is nothing left for a gate to hold")
        return steps


DEFAULT_STEPS = [
    {"mode": "canary", "weight": 10, "min_seconds": 60, "min_requests": 50},
    {"mode": "canary", "weight": 50, "min_seconds": 60, "min_requests": 50},
    {"mode": "full", "weight": 100, "min_seconds": 60},
]


def plan_of(steps: list[dict] | None, guard: dict | None) -> Plan:
    """The checked plan; `None` takes the defaults. An explicitly empty guard is refused."""
    if guard is not None and not guard:
        raise Problem("Automatic rollback needs at least one guard.", field="guard")
    return Plan.model_validate({"steps": DEFAULT_STEPS if steps is None else steps, "guard": guard or {}})
