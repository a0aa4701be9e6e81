"""Whether a trial keeps what the goal promises, and if not, in which words."""

from __future__ import annotations

from statistics import NormalDist

from engine.optimize.lab.goal import Goal
from engine.optimize.lab.trial import Judgement, Measured, Trial
from engine.sentence import Sentence, say

_MB = 1_000_000
_ALPHA = 0.05


def quality_breach(goal: Goal, judged: Judgement) -> Sentence | None:
    """Why the quality is not enough, or None."""
    allowed = f"{goal.max_loss:g}"
    if judged.loss > goal.max_loss:
        return say(
            "It loses %(loss)s %(unit)s (%(allowed)s may be lost).",
            loss=f"{judged.loss:.2f}", unit=unit(judged), allowed=allowed,
        )  # fmt: skip
    worst = judged.worst
    if worst is not None and worst.loss > goal.slice_loss and worst.column:
        return say(
            "Where %(column)s is %(name)s it loses %(loss)s %(unit)s (%(allowed)s may be lost).",
            column=worst.column, name=worst.name, loss=f"{worst.loss:.2f}", unit=unit(judged),
            allowed=f"{goal.slice_loss:g}",
        )  # fmt: skip
    if worst is not None and worst.loss > goal.slice_loss:
        return say(
            "Class %(name)s loses %(loss)s points (%(allowed)s may be lost).",
            name=worst.name, loss=f"{worst.loss:.2f}", allowed=f"{goal.slice_loss:g}",
        )  # fmt: skip
    if goal.sure and judged.loss_upper > goal.max_loss:
        return say(
            "Up to %(loss)s %(unit)s may be lost: %(rows)s rows prove no less.",
            loss=f"{judged.loss_upper:.2f}", unit=unit(judged), rows=str(judged.rows),
        )  # fmt: skip
    return None


def proven(goal: Goal, judged: Judgement) -> bool:
    """Whether the promise holds with 95 % confidence, not only on these rows."""
    return judged.loss_upper <= goal.max_loss


def upper_among(judged: Judgement, count: int) -> float:
    """The loss is below it with 95 % confidence though this one was chosen among `count` judged on the same rows: the
    best of many owes a part of its figure to luck. Bonferroni: each bound at 1 - 0.05 / count, by the normal
    approximation loss + (loss_upper - loss) z(0.05 / count) / z(0.05)."""
    normal = NormalDist()
    wider = normal.inv_cdf(1 - _ALPHA / max(1, count)) / normal.inv_cdf(1 - _ALPHA)
    return judged.loss + (judged.loss_upper - judged.loss) * wider


def cost_breaches(goal: Goal, measured: Measured) -> dict[str, float]:
    """By how much each budget is exceeded (1.2: a fifth too much); only those that are."""
    asked = {
        "latency_ms": (goal.latency_ms, measured.p95_ms),
        "size_mb": (goal.size_mb, measured.size_bytes / _MB),
        "memory_mb": (goal.memory_mb, measured.peak_memory_mb),
    }
    return {
        name: found / budget
        for name, (budget, found) in asked.items()
        if budget is not None and found is not None and found > budget
    }


def keeps(goal: Goal, trial: Trial) -> bool:
    """Whether a measured trial keeps everything that was asked."""
    if trial.state != "measured" or trial.judged is None or trial.measured is None:
        return False
    return not quality_breach(goal, trial.judged) and not cost_breaches(goal, trial.measured)


def score(goal: Goal, measured: Measured, baseline: Measured) -> float:
    """What is to be small among those that keep the promise: time and size as shares of the baseline's; balanced is the
    product of both."""
    size = measured.size_bytes / max(1, baseline.size_bytes)
    return {"latency": measured.ratio * size**0.05, "size": size * measured.ratio**0.05}.get(
        goal.prefer, measured.ratio * size
    )


def unit(judged: Judgement) -> Sentence:
    """What a loss is counted in."""
    return say({"accuracy": "points", "rmse": "%% of the error", "agreement": "%% of the answers"}[judged.metric])
