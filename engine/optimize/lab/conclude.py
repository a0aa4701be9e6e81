"""What a search found: the front, one recommendation with its reasons, or the nearest points and what to relax."""

from __future__ import annotations

from pydantic import BaseModel

from engine.optimize.base import optimizer
from engine.optimize.lab.goal import Goal
from engine.optimize.lab.pareto import front
from engine.optimize.lab.promise import cost_breaches, keeps, proven, quality_breach, score, unit, upper_among
from engine.optimize.lab.trial import Judgement, Measured, Trial
from engine.optimize.recipe import Recipe
from engine.sentence import AND, Sentence, chained, in_turn, say

NEAREST = 3
# A proof is worth so much: what is proven may take this many times the time (or size) of what is not.
_WORTH_PROOF = 1.25
# What is worth naming for its size alone: at most this share of it, and no slower than measuring can tell.
_MUCH_SMALLER = 0.75
_SAME_SPEED = 1.05


class Conclusion(BaseModel):
    """Trials by the keys of their recipes. front: not dominated in loss, time of a call, size and memory. offered: much
    smaller at the same speed, where speed was asked for and nothing is faster."""

    front: list[str] = []
    recommended: str | None = None
    offered: str | None = None
    reasons: list[Sentence] = []
    nearest: list[str] = []
    relax: list[Sentence] = []


def conclude(goal: Goal, baseline: Measured, trials: list[Trial]) -> Conclusion:
    """`baseline` is the model that the search began with."""
    measured = [trial for trial in trials if trial.state == "measured"]
    judged = sum(trial.judged is not None for trial in trials)
    found = Conclusion(front=[measured[index].key for index in front([_point(trial) for trial in measured])])
    good = [trial for trial in measured if keeps(goal, trial)]
    if goal.sure:
        good = [trial for trial in good if upper_among(_judged(trial), judged) <= goal.max_loss]
    if good:
        scored = [(score(goal, _cost(trial), baseline), trial) for trial in good]
        better = [(value, trial) for value, trial in scored if _better(goal, value, _cost(trial))]
        # A model that does not fit the device is no way out: then the best that fits is.
        wanted = better or (scored if cost_breaches(goal, baseline) else [])
        if wanted:
            best, boldest, surest = _chosen(goal, wanted)
            found.recommended = best.key
            found.reasons = _reasons(goal, best, baseline, len(trials), judged, good)
            if not better:
                found.reasons.append(say("The model as it is does not keep the budgets; this is the best that does."))
            if best is not boldest:
                found.reasons.append(_bolder(boldest, baseline))
            elif best is not surest:
                found.reasons.append(_surer(surest, baseline))
            return found
        return _as_it_is(goal, baseline, good, found)
    nearest = sorted(measured, key=lambda trial: _distance(goal, trial))[:NEAREST]
    found.nearest = [trial.key for trial in nearest]
    found.relax = _relax(goal, nearest, trials, judged)
    found.reasons = [say("Nothing that was tried keeps the promise.")]
    return found


def _better(goal: Goal, value: float, cost: Measured) -> bool:
    """Whether the model as it is may be left for it. Where speed was asked for it has to be faster beyond what noise
    explains; a small file does not make up for that."""
    return value < 1 and (goal.prefer != "latency" or cost.ratio_high < 1)


def _chosen(goal: Goal, scored: list[tuple[float, Trial]]) -> tuple[Trial, Trial, Trial]:
    """(the one to take, the one with the least score, the best of those that are proven or else the same). What is
    proven comes before what only held on these rows, if it is nearly as good."""
    ranked = sorted(scored, key=lambda pair: pair[0])
    least, boldest = ranked[0]
    value, surest = next(((value, trial) for value, trial in ranked if _sure(goal, trial)), ranked[0])
    return surest if value <= least * _WORTH_PROOF else boldest, boldest, surest


def _as_it_is(goal: Goal, baseline: Measured, good: list[Trial], found: Conclusion) -> Conclusion:
    """Nothing is better for what matters; where that is speed, what is much smaller and no slower is offered."""
    if goal.prefer != "latency":
        found.reasons = [say("Nothing that was tried is better than the model as it is.")]
        return found
    found.reasons = [
        say("Nothing that keeps the promise is faster than the model as it is, beyond what noise explains.")
    ]
    smaller = [
        (share, trial)
        for trial in good
        if (share := _cost(trial).size_bytes / max(1, baseline.size_bytes)) <= _MUCH_SMALLER
        and _cost(trial).ratio_low <= 1
        and _cost(trial).ratio <= _SAME_SPEED
    ]
    if smaller:
        offer = _chosen(goal, smaller)[0]
        found.offered = offer.key
        found.reasons.append(
            say(
                "If its size matters as well: %(recipe)s has %(share)s %% of the size at the same speed, and on these "
                "rows it %(lost)s.",
                recipe=_named(offer.recipe), share=_share(offer, baseline), lost=_lost(_judged(offer)),
            )
        )  # fmt: skip
    return found


def _point(trial: Trial) -> tuple[float, ...]:
    cost, judged = _cost(trial), _judged(trial)
    return (max(0.0, judged.loss), cost.ratio, float(cost.size_bytes), cost.peak_memory_mb or 0.0)


def _cost(trial: Trial) -> Measured:
    assert trial.measured is not None
    return trial.measured


def _judged(trial: Trial) -> Judgement:
    assert trial.judged is not None
    return trial.judged


def _sure(goal: Goal, trial: Trial) -> bool:
    return proven(goal, _judged(trial))


def _reasons(goal: Goal, best: Trial, baseline: Measured, tried: int, judges: int, good: list[Trial]) -> list[Sentence]:
    judged = _judged(best)
    rows, bound = str(judged.rows), f"{max(0.0, judged.loss_upper):.2f}"
    reasons = [
        say("It has %(speed)s and %(share)s %% of the size.", speed=_speed(_cost(best)), share=_share(best, baseline)),
        say(
            "On %(rows)s rows it %(lost)s, at most %(bound)s with 95 %% confidence.",
            rows=rows, lost=_lost(judged), bound=bound,
        ),
        say(
            "Chosen among %(judges)s that were judged on the same rows, it owes a part of that to luck: at most "
            "%(bound)s with 95 %% confidence for all of them together.",
            judges=str(judges), bound=f"{max(0.0, upper_among(judged, judges)):.2f}",
        ),
        say(
            "Of %(tried)s tried, %(good)s keep the promise; this is the best of them for %(wish)s.",
            tried=str(tried), good=str(len(good)), wish=say(_WISHES[goal.prefer]),
        ),
    ]  # fmt: skip
    if not _sure(goal, best):
        reasons.append(say("The promise holds on these rows; %(rows)s of them are too few to prove it.", rows=rows))
    return reasons


def _lost(judged: Judgement) -> Sentence:
    if judged.loss > 0:
        return say("loses %(loss)s %(unit)s", loss=f"{judged.loss:.2f}", unit=unit(judged))
    return say("loses nothing")


def _speed(cost: Measured) -> Sentence:
    if cost.ratio_low > 1:
        return say("slower than its parent: %(ratio)s times the time of a call", ratio=f"{cost.ratio:.2f}")
    return say(
        "%(speed)s times the speed (%(low)s to %(high)s)",
        speed=f"{cost.speedup:.2f}", low=f"{1 / cost.ratio_high:.2f}", high=f"{1 / cost.ratio_low:.2f}",
    )  # fmt: skip


def _share(trial: Trial, baseline: Measured) -> str:
    return f"{100 * _cost(trial).size_bytes / max(1, baseline.size_bytes):.1f}"


def _bolder(trial: Trial, baseline: Measured) -> Sentence:
    judged = _judged(trial)
    return say(
        "%(recipe)s would be %(speed)s times as fast with %(share)s %% of the size, and lost %(loss)s on these rows; "
        "up to %(bound)s cannot be ruled out.",
        recipe=_named(trial.recipe), speed=f"{_cost(trial).speedup:.2f}", share=_share(trial, baseline),
        loss=f"{max(0.0, judged.loss):.2f}", bound=f"{judged.loss_upper:.2f}",
    )  # fmt: skip


def _surer(trial: Trial, baseline: Measured) -> Sentence:
    return say(
        "%(recipe)s is proven to keep the promise, with %(speed)s times the speed and %(share)s %% of the size.",
        recipe=_named(trial.recipe), speed=f"{_cost(trial).speedup:.2f}", share=_share(trial, baseline),
    )  # fmt: skip


def _named(recipe: Recipe) -> Sentence:
    """As `Recipe.label`."""
    return in_turn(optimizer(step.optimizer).label for step in recipe.steps)


def _distance(goal: Goal, trial: Trial) -> float:
    """How far a trial is from the goal: the sum of what exceeds each budget, in its own share."""
    over = sum(excess - 1 for excess in cost_breaches(goal, _cost(trial)).values())
    allowed = max(goal.max_loss, 0.1)
    return over + max(0.0, _judged(trial).loss - goal.max_loss) / allowed


def _relax(goal: Goal, nearest: list[Trial], trials: list[Trial], judges: int) -> list[Sentence]:
    if not nearest:
        refused = [trial for trial in trials if trial.judged is not None]
        if not refused:
            return [say("No variant could be made of this model.")]
        return [
            say(
                "Let it lose %(loss)s instead of %(allowed)s: the least that any variant lost.",
                loss=f"{min(_judged(trial).loss for trial in refused):.2f}", allowed=f"{goal.max_loss:g}",
            )
        ]  # fmt: skip
    return [
        say("%(recipe)s would do with %(wishes)s.", recipe=_named(trial.recipe), wishes=_wishes(goal, trial, judges))
        for trial in nearest
    ]


def _wishes(goal: Goal, trial: Trial, judges: int) -> Sentence:
    """What a measured trial that breaks the promise asks for."""
    judged = _judged(trial)
    wishes = [
        say(_BUDGETS[name], most=f"{getattr(goal, name) * excess:.3g}")
        for name, excess in cost_breaches(goal, _cost(trial)).items()
    ]
    if quality_breach(goal, judged):
        wishes.append(say("a loss of %(loss)s %(unit)s", loss=f"{max(judged.loss, 0):.2f}", unit=unit(judged)))
    elif goal.sure and (bound := upper_among(judged, judges)) > goal.max_loss:
        wishes.append(
            say(
                "more rows, for the best of %(judges)s may lose up to %(loss)s %(unit)s",
                judges=str(judges), loss=f"{bound:.2f}", unit=unit(judged),
            )
        )  # fmt: skip
    return chained(wishes, AND)


_BUDGETS = {
    "latency_ms": "a latency of %(most)s ms",
    "size_mb": "a size of %(most)s MB",
    "memory_mb": "a memory of %(most)s MB",
}
_WISHES = {"latency": "speed", "size": "size", "balanced": "speed and size together"}
