"""Stages that make a network smaller: in depth, then in width, as far as quality allows and as can be proven."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from engine.optimize.lab import amounts
from engine.optimize.lab.state import TUNING, Proposal, State, is_tuned, last_tuning, step
from engine.optimize.lab.trial import Trial
from engine.optimize.recipe import Recipe, Step
from engine.sentence import Sentence, say

EPOCHS = 100
_BLOCKS = "prune-blocks"
# A tuning's part of the time, so that a dozen fit.
_TUNING_SHARE = 0.08
_NEAR_PROVEN = 0.03
_TRIES_PROVEN = 8
_TRIES_BLOCKS = 3
# Of what is left after a first cut.
_SECOND = 0.35
_TRIES_SECOND = 6


@dataclass(frozen=True, slots=True)
class Way:
    """Of choosing channels. name: for people. head, tail: what is done before and after the cut."""

    name: str
    head: tuple[Step, ...]
    cut: Step
    tail: tuple[Step, ...]

    def steps(self, amount: float) -> tuple[Step, ...]:
        cut = Step(optimizer=self.cut.optimizer, options={**self.cut.options, "amount": amount})
        return (*self.head, cut, *self.tail)


def shortened(state: State) -> Iterator[Proposal]:
    """Residual blocks removed, as long as it can be proven that quality allows: what is left is tuned, and then made
    narrower."""
    count = state.survey.blocks
    if not count or not state.survey.training:
        return

    def gone(amount: float) -> int:
        return min(count, max(1, round(amount * count)))

    def steps(amount: float) -> tuple[Step, ...]:
        return (step(_BLOCKS, amount=round(gone(amount) / count, 4)), tuning(state))

    def why(amount: float) -> Sentence:
        return say("%(gone)s of %(count)s residual blocks left out", gone=str(gone(amount)), count=str(count))

    yield from _furthest(state, steps, why, good=State.good, near=1 / count, tries=_TRIES_BLOCKS)


def pruned(state: State) -> Iterator[Proposal]:
    """Channels removed as far as quality allows, then quantized by what did best alone. The first way of choosing them
    finds how far that is; the others begin there."""
    if state.survey.control_flow:
        return
    first = 0.5 if state.survey.training else 0.25
    for number, way in enumerate(_ways(state)):
        why = partial(_share, "%(way)s, %(share)s %% of the channels", way=say(way.name))
        outcomes = yield from _furthest(state, way.steps, why, only_up=number > 0, first=first)
        if outcomes is None:
            return
        first = max((amount for amount, well in outcomes.items() if well), default=first)


def provable(state: State) -> Iterator[Proposal]:
    """As far as it can be proven that quality allows, by the way of choosing channels that went furthest."""
    best = _best_cut(state)
    if best is None or state.sure(best) or not state.provable:
        return
    for way in _ways(state):
        if way.cut.optimizer in {each.optimizer for each in best.recipe.steps}:
            why = partial(_share, "%(way)s, %(share)s %%: more may be provable", way=say(way.name))
            yield from _furthest(state, way.steps, why, good=State.sure, near=_NEAR_PROVEN, tries=_TRIES_PROVEN)


def twice(state: State) -> Iterator[Proposal]:
    """Beyond what one cut bears: cut, tune, cut again, tune again; then as much of it as can be proven."""
    best = _best_cut(state)
    if best is None:
        return
    done = best.recipe.steps[: last_tuning(best.recipe.steps) + 1]
    again = Way("", done, done[-2], done[-1:])
    why = partial(_share, "a second cut of %(share)s %% after tuning")
    outcomes = yield from _furthest(state, again.steps, why, first=_SECOND, tries=3)
    if outcomes and any(outcomes.values()) and state.provable:
        why = partial(_share, "a second cut of %(share)s %%: more may be provable")
        yield from _furthest(state, again.steps, why, State.sure, first=_SECOND, near=_NEAR_PROVEN, tries=_TRIES_SECOND)


def tuning(state: State) -> Step:
    return step(TUNING, epochs=EPOCHS, seconds=tuning_seconds(state))


def tuning_seconds(state: State) -> int:
    return max(5, round(_TUNING_SHARE * state.goal.minutes * 60))


def _furthest(
    state: State,
    steps: Callable[[float], tuple[Step, ...]],
    why: Callable[[float], Sentence],
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
        well = yield from _forms(state, steps(amount), why(amount), good)
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
    last = state.quantizer()
    recipes = [Recipe(steps=steps)] if is_tuned(steps) or not last else []
    if last:
        recipes.append(Recipe(steps=(*steps, *last)))
    for recipe in recipes:
        if recipe.key not in state.tried:
            plain = last and recipe is not recipes[-1]
            yield Proposal(recipe, say("%(cut)s, not quantized", cut=why) if plain else why)
            return None
    keys = {recipe.key for recipe in recipes}
    return any(trial.key in keys and trial.state == "measured" and good(state, trial) for trial in state.trials)


def _share(text: str, amount: float, **figures: Sentence) -> Sentence:
    return say(text, share=f"{100 * amount:.0f}", **figures)


def _ways(state: State) -> Iterator[Way]:
    if state.survey.training:
        head, tail = _head(state), (tuning(state),)
        yield Way("smallest weights", head, step("prune-channels"), tail)
        if state.survey.calibration:
            yield Way("least active", head, step("prune-channels-by-activation"), tail)
    elif state.survey.calibration:
        fitted = step("prune-channels-by-activation", reconstruct=True)
        yield Way("least active, the rest refitted", (), fitted, ())


def _head(state: State) -> tuple[Step, ...]:
    """What channels are cut from: the shortest network that is good, else the whole one."""
    good = (trial.recipe.steps for trial in state.kept() if state.good(trial))
    short = [steps for steps in good if steps[0].optimizer == _BLOCKS and steps[1:] == (tuning(state),)]
    return max(short, key=lambda steps: float(steps[0].options["amount"]), default=())


def _best_cut(state: State) -> Trial | None:
    """The best whose channels were cut once, and tuned."""
    return state.best([trial for trial in state.kept() if _cuts(trial) == 1 and is_tuned(trial.recipe.steps)])


def _cuts(trial: Trial) -> int:
    return sum(each.optimizer.startswith("prune-channels") for each in trial.recipe.steps)
