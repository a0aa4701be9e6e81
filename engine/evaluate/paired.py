"""Is one model worse than another on the same rows, and by how much at most?

A difference of two accuracies comes with a bound, because a few rows prove little: with 540 of them, one right answer
more or less is 0.2 points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.evaluate.outputs import Outputs, same_words
from engine.evaluate.quality import predicted_labels

Z_ONE_SIDED = 1.6449  # 95 %
_RESAMPLES = 2_000
_NEAR = 1e-3
# {column: (names of its groups, the place of each row's group among them (n,))}
Groups = dict[str, tuple[list[str], Any]]


def judge(
    task: str,
    baseline: Outputs,
    variant: Outputs,
    y: Any,
    labels: list[Any] | None = None,
    seed: int = 0,
    groups: Groups | None = None,
) -> dict[str, Any]:
    """The fields of a Judgement: metric, baseline, value, loss, loss_upper, p_value, rows, slices; for
    classifications also "confusion" {"labels", "before", "after"} (rows: truth, columns: predicted).

    Classification with a truth: accuracy in percent, loss in percentage points, slices by class.
    Regression with a truth: RMSE, loss in percent of the baseline's. Otherwise: agreement of the answers, in percent.
    Every one of the `groups` is a slice too.
    """
    groups = groups or {}
    if y is not None and "classification" in task:
        truth = same_words(y)
        before, after = (predicted_labels(outputs, y, labels) for outputs in (baseline, variant))
        return _accuracy(before, after, truth, groups)
    if y is not None and ("regression" in task or task == "recommendation"):
        return _error(baseline, variant, y, seed, groups)
    return _agreement(baseline, variant, groups)


def _accuracy(before: Any, after: Any, truth: Any, groups: Groups) -> dict[str, Any]:
    import numpy as np

    was, now = before == truth, after == truth
    lost, won, count = int(np.sum(was & ~now)), int(np.sum(~was & now)), len(truth)
    names, classes = np.unique(truth, return_inverse=True)

    def points(which: Any) -> tuple[float, float, float]:
        shares = [100 * float(np.mean(right[which])) for right in (was, now)]
        return shares[0], shares[1], shares[0] - shares[1]

    return {
        "metric": "accuracy",
        "baseline": 100 * float(np.mean(was)),
        "value": 100 * float(np.mean(now)),
        "loss": 100 * (lost - won) / count,
        "loss_upper": 100 * difference_upper(lost, won, count),
        "p_value": mcnemar(lost, won),
        "rows": count,
        "slices": _slices({"": ([str(name) for name in names], classes), **groups}, points),
        "confusion": _confusion(before, after, truth),
    }


def _slices(groups: Groups, found: Callable[[Any], tuple[float, float, float]]) -> list[dict[str, Any]]:
    """The fields of a Slice for each group that has rows. found: (baseline, value, loss) of a mask of rows."""
    slices = []
    for column, (names, places) in groups.items():
        for place, name in enumerate(names):
            which = places == place
            if count := int(which.sum()):
                parts = dict(zip(("baseline", "value", "loss"), found(which), strict=True))
                slices.append({"column": column, "name": name, "rows": count, **parts})
    return slices


def difference_upper(lost: int, won: int, count: int) -> float:
    """One-sided 95 % upper bound of (lost - won) / count, two shares of the same rows: the adjusted Wald interval of
    Bonett and Price (2012), p = (cell + 1) / (count + 2), d + z sqrt((p₁ + p₂ - d²) / (count + 2))."""
    first, second = (lost + 1) / (count + 2), (won + 1) / (count + 2)
    difference = first - second
    deviation = ((first + second - difference**2) / (count + 2)) ** 0.5
    return min(1.0, difference + Z_ONE_SIDED * float(deviation))


def mcnemar(lost: int, won: int) -> float:
    """Exact two-sided McNemar test: the chance of a split of the rows that changed as uneven as this, were each as
    likely to be lost as won (binomial with p = 1/2)."""
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0


def _confusion(before: Any, after: Any, truth: Any) -> dict[str, Any]:
    import numpy as np

    names = np.unique(np.concatenate([truth, before, after]))
    places = {name: index for index, name in enumerate(names.tolist())}
    tables = []
    for predicted in (before, after):
        table = np.zeros((len(names), len(names)), dtype=int)
        np.add.at(table, ([places[t] for t in truth.tolist()], [places[p] for p in predicted.tolist()]), 1)
        tables.append(table.tolist())
    return {"labels": [str(name) for name in names], "before": tables[0], "after": tables[1]}


def _error(baseline: Outputs, variant: Outputs, y: Any, seed: int, groups: Groups) -> dict[str, Any]:
    """The bound is a bootstrap's over rows, the same for both: the 95 % quantile of the ratio in 2,000 resamples."""
    import numpy as np

    from engine.evaluate.quality import predicted_numbers

    truth = np.asarray(y, dtype=float)
    squares = np.stack([(predicted_numbers(outputs, truth) - truth) ** 2 for outputs in (baseline, variant)])
    random = np.random.default_rng(seed)
    ratios = np.empty(_RESAMPLES)
    for turn in range(_RESAMPLES):
        means = squares[:, random.integers(0, len(truth), len(truth))].mean(axis=1)
        ratios[turn] = np.sqrt(means[1] / max(means[0], 1e-30))

    before, after = (float(value) for value in np.sqrt(squares.mean(axis=1)))

    def error(which: Any) -> tuple[float, float, float]:
        """Of a group that was right nearly everywhere, any error would be many times more: there the rise is counted
        in a tenth of the whole's error."""
        was, now = (float(value) for value in np.sqrt(squares[:, which].mean(axis=1)))
        return was, now, 100 * (now - was) / max(was, before / 10, 1e-15)

    below = float(np.mean(ratios < 1))
    return {
        "metric": "rmse",
        "baseline": before,
        "value": after,
        "loss": 100 * (after / max(before, 1e-15) - 1),
        "loss_upper": 100 * float(np.quantile(ratios, 0.95) - 1),
        "p_value": min(1.0, 2 * min(below, 1 - below) + 1 / _RESAMPLES),
        "rows": len(truth),
        "slices": _slices(groups, error),
    }


def _agreement(baseline: Outputs, variant: Outputs, groups: Groups) -> dict[str, Any]:
    """Rows with the same label, or with the same strongest of several scores, or with numbers that differ by at most
    a thousandth of their range."""
    import numpy as np

    if baseline.labels is not None and variant.labels is not None:
        same = same_words(baseline.labels) == same_words(variant.labels)
    elif baseline.scores is not None and variant.scores is not None:
        first, second = baseline.scores, variant.scores
        if first.shape[1] > 1:
            same = first.argmax(axis=1) == second.argmax(axis=1)
        else:
            reach = _NEAR * max(float(np.ptp(first)), 1e-12)
            same = (np.abs(first - second) <= reach).all(axis=1)
    else:
        same = np.zeros(len(baseline), dtype=bool)
    differ = int(np.sum(~same))

    def agree(which: Any) -> tuple[float, float, float]:
        share = 100 * float(np.mean(same[which]))
        return 100.0, share, 100 - share

    return {
        "metric": "agreement",
        "baseline": 100.0,
        "value": 100 * float(np.mean(same)),
        "loss": 100 * differ / len(same),
        "loss_upper": 100 * difference_upper(differ, 0, len(same)),
        "p_value": None,
        "rows": len(same),
        "slices": _slices(groups, agree),
    }
