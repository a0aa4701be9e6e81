"""What to try next: single methods, then the network made smaller as far as quality allows, then the best of both
refined.

Each stage looks at the trials so far and offers what it still lacks; the first stage that offers something is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.optimize.lab.cuts import EPOCHS, provable, pruned, shortened, tuning_seconds, twice
from engine.optimize.lab.goal import Goal
from engine.optimize.lab.state import Proposal, Stage, State, is_tuned, last_tuning, one
from engine.optimize.lab.trial import Survey, Trial
from engine.optimize.recipe import Recipe, Step
from engine.sentence import say

# Convolutions with fewer weights than this share do not decide what is worth trying.
_FEW = 0.05
# So much longer is what was best tuned at the end.
_LONGER = 2


def next_recipes(goal: Goal, survey: Survey, trials: list[Trial], seconds_left: float) -> list[Proposal]:
    """Recipes to try now, side by side if need be; [] when the budget is spent or nothing is left to try."""
    left = goal.trials - len(trials)
    if left <= 0 or seconds_left <= 0 or (survey.control_flow and not survey.weight_bytes):
        return []
    made = (one.key for trial in trials if trial.state != "failed" for one in trial.recipe.prefixes())
    state = State(goal, survey, trials, frozenset(trial.key for trial in trials), frozenset(made))
    for stage in _STAGES:
        found: dict[str, Proposal] = {}
        for proposal in stage(state):
            if proposal.recipe.key not in state.tried and state.seconds(proposal.recipe) <= seconds_left:
                found.setdefault(proposal.recipe.key, proposal)
        if found:
            return list(found.values())[:left]
    return []


def _single(state: State) -> Iterator[Proposal]:
    """One method at a time: what it does for this model, and a partner for pruning later."""
    survey = state.survey
    dense = survey.share("MatMul", "Gemm")
    convolutions = survey.share("Conv")
    if survey.calibration and dense + convolutions > 0:
        yield one("int8 with ranges from the calibration rows", "static-quantization")
        yield one("the same with a scale for each channel", "static-quantization", per_channel=True)
    if dense > _FEW:
        yield one("int8 without calibration: good for matrix products", "dynamic-quantization")
        yield one("weights in 4 bits", "weight-only", bits=4)
    yield one("weights as indices into 16 values: small", "codebook")
    if survey.operators.keys() & {"BatchNormalization", "Dropout", "Identity"}:
        yield one("fewer operators", "simplify")
    yield one("half precision: half the size", "float16")


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
            yield one("int8 with the most sensitive layers left as they are", "mixed-precision", keep=keep)
        yield one("int8 with outliers cut off", "static-quantization", calibration="Percentile", per_channel=True)
    yield from _longer(state)


def _longer(state: State) -> Iterator[Proposal]:
    """The fastest that are good enough on these rows, tuned for longer: what is not proven may become so."""
    short = [trial for trial in state.kept() if is_tuned(trial.recipe.steps) and not _long(trial)]
    ranked = sorted(short, key=lambda trial: trial.measured.ratio if trial.measured else 1.0)
    longer = {"seconds": _LONGER * tuning_seconds(state), "epochs": _LONGER * EPOCHS}
    for trial in ranked[:3]:
        steps = list(trial.recipe.steps)
        last = last_tuning(steps)
        steps[last] = Step(optimizer=steps[last].optimizer, options={**steps[last].options, **longer})
        yield Proposal(Recipe(steps=tuple(steps)), say("one of the fastest so far, tuned for longer"))


def _long(trial: Trial) -> bool:
    return any(step.options.get("epochs", 0) > EPOCHS for step in trial.recipe.steps)


_STAGES: tuple[Stage, ...] = (_single, shortened, pruned, provable, twice, _refined)
