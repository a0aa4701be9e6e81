"""What to try next: single methods, then channels removed as far as quality allows, then the best of both refined.

Each stage looks at the trials so far and offers what it still lacks; the first stage that offers something is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from engine.optimize.lab import amounts
from engine.optimize.lab.goal import Goal
from engine.optimize.lab.promise import proven, quality_breach, score
from engine.optimize.lab.sentence import Sentence, say
from engine.optimize.lab.trial import Measured, Survey, Trial
from engine.optimize.recipe import Recipe, Step

# Convolutions with fewer weights than this share do not decide what is worth trying.
_FEW = 0.05
_TUNING_SHARE = 0.08
# So much longer is what was best tuned at the end.
_LONGER = 2
_EPOCHS = 100
_NEAR_PROVEN = 0.03
_TRIES_PROVEN = 8
# A trial's least: its variant has to be made, judged and measured.
_TRIAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Proposal:
    recipe: Recipe
    why: Sentence


@dataclass(frozen=True, slots=True)
class State:
    """A search so far."""

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

    def seconds(self, recipe: Recipe) -> float:
        """The least that a trial of it takes: what is still to be tuned, and the rest."""
        done = max((len(one.steps) for one in recipe.prefixes() if one.key in self.made), default=0)
        tuned = sum(float(step.options.get("seconds", 0)) for step in recipe.steps[done:])
        return tuned + _TRIAL_S

    def best(self, trials: list[Trial]) -> Trial | None:
        """The one with the least time × size, or what the goal prefers."""
        scored = [(score(self.goal, trial.measured, _unit(self)), trial) for trial in trials if trial.measured]
        return min(scored, key=lambda pair: pair[0], default=(0.0, None))[1]


Stage = Callable[[State], Iterator[Proposal]]


def next_recipes(goal: Goal, survey: Survey, trials: list[Trial], seconds_left: float) -> list[Proposal]:
    """Recipes to try now, side by side if need be; [] when the budget is spent or nothing is left to try."""
    left = goal.trials - len(trials)
    if left <= 0 or seconds_left <= 0 or (survey.control_flow and not survey.weight_bytes):
        return []
    made = (one.key for trial in trials if trial.state != "failed" for one in trial.recipe.prefixes())
    state = State(goal, survey, trials, frozenset(trial.key for trial in trials), frozenset(made))
    for stage in (_single, _pruned, _proven, _twice, _refined):
        found: dict[str, Proposal] = {}
        for proposal in stage(state):
            if proposal.recipe.key not in state.tried and state.seconds(proposal.recipe) <= seconds_left:
                found.setdefault(proposal.recipe.key, proposal)
        if found:
            return list(found.values())[:left]
    return []


def _step(name: str, **options: object) -> Step:
    return Step(optimizer=name, options=dict(options))


def _single(state: State) -> Iterator[Proposal]:
    """One method at a time: what it does for this model, and a partner for pruning later."""
    survey = state.survey
    dense = survey.share("MatMul", "Gemm")
    convolutions = survey.share("Conv")
    if survey.calibration and dense + convolutions > 0:
        yield _one("int8 with ranges from the calibration rows", _step("static-quantization"))
        yield _one("the same with a scale for each channel", _step("static-quantization", per_channel=True))
    if dense > _FEW:
        yield _one("int8 without calibration: good for matrix products", _step("dynamic-quantization"))
        yield _one("weights in 4 bits", _step("weight-only", bits=4))
    yield _one("weights as indices into 16 values: small", _step("codebook"))
    if survey.operators.keys() & {"BatchNormalization", "Dropout", "Identity"}:
        yield _one("fewer operators", _step("simplify"))
    yield _one("half precision: half the size", _step("float16"))


def _pruned(state: State) -> Iterator[Proposal]:
    """Channels removed as far as quality allows, then quantized by what did best alone. The first way of choosing them
    finds how far that is; the others begin there."""
    if state.survey.control_flow:
        return
    first = 0.5 if state.survey.training else 0.25
    for number, (name, before) in enumerate(_pruners(state)):
        why = partial(say, "%(way)s, %(share)s %% of the channels", way=say(name))
        outcomes = yield from _furthest(state, before, why, only_up=number > 0, first=first)
        if outcomes is None:
            return
        first = max((amount for amount, well in outcomes.items() if well), default=first)


def _proven(state: State) -> Iterator[Proposal]:
    """As far as it can be proven that quality allows, by the way of choosing channels that went furthest."""
    best = _best_cut(state)
    if best is None or state.sure(best):
        return
    for name, before in _pruners(state):
        if before(0.5)[0].optimizer == best.recipe.steps[0].optimizer:
            why = partial(say, "%(way)s, %(share)s %%: more may be provable", way=say(name))
            yield from _furthest(state, before, why, good=State.sure, near=_NEAR_PROVEN, tries=_TRIES_PROVEN)


def _furthest(
    state: State,
    steps: Callable[[float], tuple[Step, ...]],
    why: Callable[..., Sentence],
    good: Callable[[State, Trial], bool] = State.ok,
    only_up: bool = False,
    **bounds: Any,
) -> Generator[Proposal, None, dict[float, bool] | None]:
    """Offers what `amounts.following` asks for, one share at a time, and returns which were `good`; None while that is
    open. why: takes the share. only_up: if the first is too much, nothing less is tried."""
    outcomes: dict[float, bool] = {}
    while (amount := amounts.following(outcomes, **bounds)) is not None:
        if only_up and outcomes and not any(outcomes.values()):
            break
        well = yield from _forms(state, steps(amount), why(share=f"{100 * amount:.0f}"), good)
        if well is None:
            return None
        outcomes[amount] = well
    return outcomes


def _forms(
    state: State, steps: tuple[Step, ...], why: Sentence, good: Callable[[State, Trial], bool]
) -> Generator[Proposal, None, bool | None]:
    """Offers what a cut may become, one at a time, and returns whether any is `good`; None while that is open.

    What was tuned is looked at as it is, too: of a few channels, quantizing and reading back can take longer than it
    saves, and it is what the others begin with.
    """
    last = _quantizer(state)
    recipes = [Recipe(steps=steps)] if _tuned(steps) or not last else []
    if last:
        recipes.append(Recipe(steps=(*steps, *last)))
    for recipe in recipes:
        if recipe.key not in state.tried:
            plain = last and recipe is not recipes[-1]
            yield Proposal(recipe, say("%(cut)s, not quantized", cut=why) if plain else why)
            return None
    keys = {recipe.key for recipe in recipes}
    return any(trial.key in keys and trial.state == "measured" and good(state, trial) for trial in state.trials)


def _pruners(state: State) -> Iterator[tuple[str, Callable[[float], tuple[Step, ...]]]]:
    if state.survey.training:
        tune = _tuning(state)
        yield "smallest weights", lambda amount: (_step("prune-channels", amount=amount), tune)
        if state.survey.calibration:
            yield "least active", lambda amount: (_step("prune-channels-by-activation", amount=amount), tune)
    elif state.survey.calibration:
        yield (
            "least active, the rest refitted",
            lambda amount: (_step("prune-channels-by-activation", amount=amount, reconstruct=True),),
        )


def _twice(state: State) -> Iterator[Proposal]:
    """Beyond what one cut bears: cut, tune, cut again, tune again."""
    best = _best_cut(state)
    if best is None:
        return
    cut, tune = best.recipe.steps[:2]

    def again(amount: float) -> tuple[Step, ...]:
        return (cut, tune, Step(optimizer=cut.optimizer, options={**cut.options, "amount": amount}), tune)

    why = partial(say, "a second cut of %(share)s %% after tuning")
    yield from _furthest(state, again, why, first=0.35, tries=3)


def _refined(state: State) -> Iterator[Proposal]:
    """The best so far, and what failed by little, once more with more care."""
    best = state.best(state.kept())
    if best is not None and best.recipe.steps[-1].optimizer == "static-quantization":
        last = best.recipe.steps[-1]
        for options, why in (
            ({"form": "QOperator"}, "the best so far, quantized in the other form"),
            ({"per_channel": True}, "the best so far, quantized by channel"),
        ):
            other = Step(optimizer=last.optimizer, options={**last.options, **options})
            yield Proposal(Recipe(steps=(*best.recipe.steps[:-1], other)), say(why))
    static = [
        trial
        for trial in state.trials
        if len(trial.recipe.steps) == 1 and trial.recipe.steps[0].optimizer == "static-quantization"
    ]
    if static and not any(state.ok(trial) for trial in static):
        for keep in (0.1, 0.25):
            yield _one("int8 with the most sensitive layers left as they are", _step("mixed-precision", keep=keep))
        yield _one(
            "int8 with outliers cut off", _step("static-quantization", calibration="Percentile", per_channel=True)
        )
    yield from _longer(state)


def _longer(state: State) -> Iterator[Proposal]:
    """The fastest that are good enough on these rows, tuned for longer: what is not proven may become so."""
    tuned = [trial for trial in state.kept() if _tuned(trial.recipe.steps) and not _long(trial)]
    ranked = sorted(tuned, key=lambda trial: trial.measured.ratio if trial.measured else 1.0)
    longer = {"seconds": _LONGER * _seconds(state), "epochs": _LONGER * _EPOCHS}
    for trial in ranked[:3]:
        steps = tuple(
            Step(optimizer=step.optimizer, options={**step.options, **longer})
            if step.optimizer == "fine-tuning"
            else step
            for step in trial.recipe.steps
        )
        yield Proposal(Recipe(steps=steps), say("one of the fastest so far, tuned for longer"))


def _quantizer(state: State) -> tuple[Step, ...]:
    """The last step for what was pruned: the single method that did best, or none."""
    single = [trial for trial in state.kept() if len(trial.recipe.steps) == 1]
    faster = [trial for trial in single if trial.measured is not None and trial.measured.ratio <= 1.05]
    best = state.best(faster)
    return best.recipe.steps if best is not None and best.recipe.steps[0].optimizer != "simplify" else ()


def _tuning(state: State) -> Step:
    return _step("fine-tuning", epochs=_EPOCHS, seconds=_seconds(state))


def _seconds(state: State) -> int:
    """A tuning's part of the time, so that a dozen fit."""
    return max(5, round(_TUNING_SHARE * state.goal.minutes * 60))


def _one(why: str, step: Step) -> Proposal:
    return Proposal(Recipe(steps=(step,)), say(why))


def _best_cut(state: State) -> Trial | None:
    """The best that was cut once and tuned."""
    return state.best([trial for trial in state.kept() if _cuts(trial) == 1 and _tuned(trial.recipe.steps)])


def _cuts(trial: Trial) -> int:
    return sum(step.optimizer.startswith("prune-channels") for step in trial.recipe.steps)


def _tuned(steps: tuple[Step, ...]) -> bool:
    return any(step.optimizer == "fine-tuning" for step in steps)


def _long(trial: Trial) -> bool:
    return any(step.options.get("epochs", 0) > _EPOCHS for step in trial.recipe.steps)


def _unit(state: State) -> Measured:
    """A baseline to score by: only the order of scores counts here, so any will do."""
    return Measured(p50_ms=1, p95_ms=1, p99_ms=1, size_bytes=max(1, state.survey.weight_bytes))
