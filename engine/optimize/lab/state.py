"""A search so far, as the stages of the plan ask about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from engine.evaluate.paired import difference_upper
from engine.optimize.lab.goal import Goal
from engine.optimize.lab.promise import proven, quality_breach, score
from engine.optimize.lab.trial import Measured, Survey, Trial
from engine.optimize.recipe import Recipe, Step
from engine.sentence import Sentence, say

TUNING = "fine-tuning"
# A trial's least: its variant has to be made, judged and measured.
_TRIAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Proposal:
    recipe: Recipe
    why: Sentence


@dataclass(frozen=True, slots=True)
class State:
    goal: Goal
    survey: Survey
    trials: list[Trial]
    tried: frozenset[str]
    # Keys of what stands after each stretch of a trial: need not be made again.
    made: frozenset[str]

    def kept(self) -> list[Trial]:
        """Measured trials whose quality is enough."""
        return [trial for trial in self.trials if trial.state == "measured" and self.ok(trial)]

    def ok(self, trial: Trial) -> bool:
        return trial.judged is not None and not quality_breach(self.goal, trial.judged)

    def sure(self, trial: Trial) -> bool:
        return self.ok(trial) and trial.judged is not None and proven(self.goal, trial.judged)

    @property
    def provable(self) -> bool:
        """Whether a variant that answers like its parent would be proven: not with few rows."""
        judged = next((trial.judged for trial in self.trials if trial.judged is not None), None)
        if judged is None or judged.metric != "accuracy":
            return True
        return 100 * difference_upper(0, 0, judged.rows) <= self.goal.max_loss

    def good(self, trial: Trial) -> bool:
        """Enough to build on: proven, where a proof is possible."""
        return self.sure(trial) if self.provable else self.ok(trial)

    def seconds(self, recipe: Recipe) -> float:
        """The least that a trial of it takes: what is still to be tuned, and the rest."""
        done = max((len(one.steps) for one in recipe.prefixes() if one.key in self.made), default=0)
        tuned = sum(float(step.options.get("seconds", 0)) for step in recipe.steps[done:])
        return tuned + _TRIAL_S

    def best(self, trials: list[Trial]) -> Trial | None:
        """The one with the least time × size, or what the goal prefers."""
        # Only the order of scores counts here, so any baseline will do.
        unit = Measured(p50_ms=1, p95_ms=1, p99_ms=1, size_bytes=max(1, self.survey.weight_bytes))
        scored = [(score(self.goal, trial.measured, unit), trial) for trial in trials if trial.measured]
        return min(scored, key=lambda pair: pair[0], default=(0.0, None))[1]

    def quantizer(self) -> tuple[Step, ...]:
        """The last step for what was pruned: the single method that did best, or none."""
        single = [trial for trial in self.kept() if len(trial.recipe.steps) == 1]
        faster = [trial for trial in single if trial.measured is not None and trial.measured.ratio <= 1.05]
        best = self.best(faster)
        return best.recipe.steps if best is not None and best.recipe.steps[0].optimizer != "simplify" else ()


Stage = Callable[[State], Iterator[Proposal]]


def one(why: str, name: str, **options: object) -> Proposal:
    """A single method, for a reason that has no figures."""
    return Proposal(Recipe(steps=(step(name, **options),)), say(why))


def step(name: str, **options: object) -> Step:
    return Step(optimizer=name, options=dict(options))


def is_tuned(steps: Sequence[Step]) -> bool:
    return any(each.optimizer == TUNING for each in steps)


def last_tuning(steps: Sequence[Step]) -> int:
    """Its place among steps that hold one."""
    return max(place for place, each in enumerate(steps) if each.optimizer == TUNING)
