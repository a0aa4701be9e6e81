"""A recipe: optimizers with their options, one after the other."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.optimize.base import optimizer
from engine.plugins import options_of


class Step(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    optimizer: str = Field(max_length=60)
    options: dict[str, Any] = {}


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: tuple[Step, ...] = Field(min_length=1, max_length=8)

    @classmethod
    def of(cls, *steps: tuple[str, dict[str, Any]]) -> Recipe:
        return cls(steps=tuple(Step(optimizer=name, options=options) for name, options in steps))

    def checked(self) -> Recipe:
        """The same with every option written out. EngineError naming an unknown optimizer or a wrong option."""
        steps = []
        for step in self.steps:
            plugin = optimizer(step.optimizer)
            options = options_of(plugin, step.options).model_dump(mode="json")
            steps.append(Step(optimizer=plugin.name, options=options))
        return Recipe(steps=tuple(steps))

    @cached_property
    def key(self) -> str:
        """The digest of what it does: two recipes with one key give one variant."""
        return hashlib.sha256(self.checked().model_dump_json().encode()).hexdigest()

    @property
    def label(self) -> str:
        """For people: "Prune channels, then Static int8"."""
        return ", then ".join(str(optimizer(step.optimizer).label) for step in self.steps)

    @property
    def needs(self) -> frozenset[str]:
        """What of "calibration" and "training" its steps need."""
        return frozenset(need for step in self.steps for need in optimizer(step.optimizer).needs)

    def prefixes(self) -> Iterator[Recipe]:
        """What it has done after each of its stretches; the last is the recipe itself."""
        done: tuple[Step, ...] = ()
        for _, stretch in self.stretches():
            done += stretch.steps
            yield Recipe(steps=done)

    def stretches(self) -> Iterator[tuple[str | None, Recipe]]:
        """Runs of steps that share an environment, with its name (None: the worker's own)."""
        for name, steps in itertools.groupby(self.steps, key=lambda step: optimizer(step.optimizer).environment):
            yield name, Recipe(steps=tuple(steps))
