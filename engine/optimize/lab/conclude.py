"""What a search found: the front, one recommendation with its reasons, or the nearest points and what to relax."""

from __future__ import annotations

from pydantic import BaseModel

from engine.optimize.lab.goal import Goal
from engine.optimize.lab.pareto import front
from engine.optimize.lab.promise import cost_breaches, keeps, proven, quality_breach, score, unit, upper_among
from engine.optimize.lab.trial import Judgement, Measured, Trial

NEAREST = 3


class Conclusion(BaseModel):
    """Trials by the keys of their recipes. front: not dominated in loss, time of a call, size and memory."""

    front: list[str] = []
    recommended: str | None = None
    reasons: list[str] = []
    nearest: list[str] = []
    relax: list[str] = []


def conclude(goal: Goal, baseline: Measured, trials: list[Trial]) -> Conclusion:
    """`baseline` is the model that the search began with."""
    measured = [trial for trial in trials if trial.state == "measured"]
    judged = sum(trial.judged is not None for trial in trials)
    found = Conclusion(front=[measured[index].key for index in front([_point(trial) for trial in measured])])
    good = [trial for trial in measured if keeps(goal, trial)]
    if goal.sure:
        good = [trial for trial in good if upper_among(_judged(trial), judged) <= goal.max_loss]
    if good:
        # What is proven comes before what only held on these rows.
        ranked = sorted(good, key=lambda trial: score(goal, _cost(trial), baseline))
        better = [trial for trial in ranked if score(goal, _cost(trial), baseline) < 1]
        best = next((trial for trial in better if _sure(goal, trial)), better[0] if better else None)
        if best is not None:
            found.recommended = best.key
            found.reasons = _reasons(goal, best, baseline, len(trials), judged, good)
            if best is not better[0]:
                found.reasons.append(_bolder(better[0], baseline))
            return found
        found.reasons = ["Nothing that was tried is better than the model as it is."]
        return found
    nearest = sorted(measured, key=lambda trial: _distance(goal, trial))[:NEAREST]
    found.nearest = [trial.key for trial in nearest]
    found.relax = _relax(goal, nearest, trials)
    found.reasons = ["Nothing that was tried keeps the promise."]
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


def _reasons(goal: Goal, best: Trial, baseline: Measured, tried: int, judges: int, good: list[Trial]) -> list[str]:
    cost, judged = _cost(best), _judged(best)
    faster = f"{cost.speedup:.2f} times the speed ({1 / cost.ratio_high:.2f} to {1 / cost.ratio_low:.2f})"
    if cost.ratio_low > 1:
        faster = f"slower than its parent: {cost.ratio:.2f} times the time of a call"
    loss = f"loses {judged.loss:.2f} {unit(judged)}" if judged.loss > 0 else "loses nothing"
    bound = f"at most {max(0.0, judged.loss_upper):.2f} with 95 % confidence"
    reasons = [
        f"It has {faster} and {100 * cost.size_bytes / max(1, baseline.size_bytes):.1f} % of the size.",
        f"On {judged.rows} rows it {loss}, {bound}.",
        f"Chosen among {judges} that were judged on the same rows, it owes a part of that to luck: at most "
        f"{max(0.0, upper_among(judged, judges)):.2f} with 95 % confidence for all of them together.",
        f"Of {tried} tried, {len(good)} keep the promise; this is the best of them for {_wish(goal)}.",
    ]
    if not _sure(goal, best):
        reasons.append(f"The promise holds on these rows; {judged.rows} of them are too few to prove it.")
    return reasons


def _bolder(trial: Trial, baseline: Measured) -> str:
    cost, judged = _cost(trial), _judged(trial)
    share = 100 * cost.size_bytes / max(1, baseline.size_bytes)
    return (
        f"{trial.recipe.label} would be {cost.speedup:.2f} times as fast with {share:.1f} % of the size, and lost "
        f"{max(0.0, judged.loss):.2f} on these rows; up to {judged.loss_upper:.2f} cannot be ruled out."
    )


def _wish(goal: Goal) -> str:
    return {"latency": "speed", "size": "size", "balanced": "speed and size together"}[goal.prefer]


def _distance(goal: Goal, trial: Trial) -> float:
    """How far a trial is from the goal: the sum of what exceeds each budget, in its own share."""
    over = sum(excess - 1 for excess in cost_breaches(goal, _cost(trial)).values())
    allowed = max(goal.max_loss, 0.1)
    return over + max(0.0, _judged(trial).loss - goal.max_loss) / allowed


def _relax(goal: Goal, nearest: list[Trial], trials: list[Trial]) -> list[str]:
    if not nearest:
        refused = [trial for trial in trials if trial.judged is not None]
        if not refused:
            return ["No variant could be made of this model."]
        least = min(_judged(trial).loss for trial in refused)
        return [f"Let it lose {least:.2f} instead of {goal.max_loss:g}: the least that any variant lost."]
    words = []
    for trial in nearest:
        cost, judged = _cost(trial), _judged(trial)
        wishes = [
            f"{_BUDGETS[name][0]} of {getattr(goal, name) * excess:.3g} {_BUDGETS[name][1]}"
            for name, excess in cost_breaches(goal, cost).items()
        ]
        if quality_breach(goal, judged):
            wishes.append(f"a loss of {max(judged.loss, 0):.2f} {unit(judged)}")
        words.append(f"{trial.recipe.label} would do with {' and '.join(wishes)}.")
    return words


_BUDGETS = {"latency_ms": ("a latency", "ms"), "size_mb": ("a size", "MB"), "memory_mb": ("a memory", "MB")}
