"""What the lab page shows beyond the records: verdicts in words, bars, the recipe beside its parent's, confusions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from engine.optimize.base import optimizers
from engine.optimize.lab.promise import cost_breaches, proven, quality_breach
from engine.optimize.lab.trial import GUARDED_ROWS, Judgement, Measured
from registry.recipe_words import optimizer_words
from registry.search_models import Search, SearchTrial, TrialState
from registry.search_selectors import Standing

MOST_BARS = 14
MOST_CLASSES = 15
MOST_SLICES = 200
SHADES = 5


def verdict(search: Search, trial: SearchTrial) -> list[tuple[str, str]]:
    """(tone, words): plainly what it is worth; nothing for a trial whose state says it all."""
    cost, quality = trial.cost, trial.quality
    if cost is None or quality is None:
        return []
    found = [_speed(cost)]
    if search.base is not None and cost.size_bytes > search.base.size_bytes:
        found.append(("bad", _("larger than its parent")))
    budgets = {
        "latency_ms": _("over the latency budget"),
        "size_mb": _("over the size budget"),
        "memory_mb": _("over the memory budget"),
    }
    found += [("bad", budgets[name]) for name in cost_breaches(search.asked, cost)]
    found.append(_quality(search, quality))
    return found


def _speed(cost: Measured) -> tuple[str, str]:
    if cost.ratio_low > 1:
        return ("bad", _("slower than its parent"))
    if cost.ratio_high < 1:
        return ("ok", _("faster than its parent"))
    return ("quiet", _("as fast as its parent"))


def _quality(search: Search, quality: Judgement) -> tuple[str, str]:
    if quality_breach(search.asked, quality):
        return ("bad", _("breaks the promise"))
    if proven(search.asked, quality):
        return ("ok", _("keeps the promise, proven"))
    return ("warn", _("keeps the promise on these rows; too few to prove it"))


def reason_of(search: Search, trial: SearchTrial) -> str:
    """Why it was refused in the reader's language; what a job said otherwise stays as the job said it."""
    broken = quality_breach(search.asked, trial.quality) if trial.quality else None
    return broken.said(_) if broken and trial.state == TrialState.REFUSED else trial.reason


def table_of(search: Search, standing: Standing, trials: list[SearchTrial]) -> list[dict[str, Any]]:
    """Rows of the table of trials."""
    base = search.base
    return [
        {
            "trial": trial,
            "idea": trial.idea.said(_),
            "quality": trial.quality,
            "cost": trial.cost,
            "share": trial.size / base.size_bytes if trial.size and base else None,
            "verdict": verdict(search, trial),
            "reason": reason_of(search, trial),
            "recommended": trial.key == standing.conclusion.recommended,
            "front": trial.key in standing.conclusion.front,
        }
        for trial in trials
    ]


def slices_of(search: Search, trial: SearchTrial) -> list[dict[str, Any]]:
    """What was lost by class, then by the columns of the goal: {"column", "unit", "rows": (slice, too much)}. Where
    there are more than can be shown, those that lost too much come first."""
    quality = trial.quality
    if quality is None:
        return []
    columns = dict.fromkeys(one.column for one in quality.slices)
    most = search.asked.slice_loss
    found = []
    for column in columns:
        rows = [(one, one.rows >= GUARDED_ROWS and one.loss > most) for one in quality.slices if one.column == column]
        if len(rows) > MOST_SLICES:
            rows.sort(key=lambda row: not row[1])
        unit = "" if quality.metric == "rmse" else " %"
        found.append({"column": column, "unit": unit, "rows": rows[:MOST_SLICES]})
    return found


def chosen_of(standing: Standing, wanted: int | None) -> SearchTrial | None:
    """The trial whose details are shown: the one that the address names, else the recommended, offered, nearest or best
    one."""
    by_id = {trial.pk: trial for trial in standing.trials}
    if wanted in by_id:
        return by_id[wanted]
    on_front = [trial for trial in standing.trials if trial.key in standing.conclusion.front]
    return standing.recommended or standing.offered or next(iter([*standing.nearest, *on_front]), None)


def sizes_of(search: Search) -> dict[str, Any]:
    """Weights of the parent by operator and by layer, the largest first, the small ones summed up."""
    survey = search.survey
    if not survey:
        return {}
    total = max(1, survey["weight_bytes"])
    layers = [(str(layer["name"]), str(layer["operator"]), int(layer["bytes"])) for layer in survey["layers"]]
    layers.sort(key=lambda layer: -layer[2])
    shown, rest = layers[:MOST_BARS], layers[MOST_BARS:]
    if rest:
        words = _("%(n)d more layers") % {"n": len(rest)}
        shown.append((words, "", sum(size for _, _, size in rest)))
    operators = sorted(survey["bytes_by_operator"].items(), key=lambda pair: -pair[1])
    return {
        "parameters": survey["parameters"],
        "total": survey["weight_bytes"],
        "operators": [
            {"name": name, "count": survey["operators"].get(name, 0), "bytes": size, "share": 100 * size / total}
            for name, size in operators[:MOST_BARS]
        ],
        "layers": [
            {"name": name, "operator": kind, "bytes": size, "share": 100 * size / total} for name, kind, size in shown
        ],
    }


def sensitivity_of(search: Search) -> dict[str, Any]:
    """Layers that mind most, and how long their bars are."""
    rows = sorted(search.sensitivity, key=lambda row: -max(row["quantized"], row.get("pruned") or 0))
    if not rows:
        return {}
    most = {name: max(row.get(name) or 0 for row in rows) or 1 for name in ("quantized", "pruned")}
    return {
        "rows": [
            {**row, **{f"{name}_share": 100 * (row.get(name) or 0) / most[name] for name in most}}
            for row in rows[:MOST_BARS]
        ],
        "more": max(0, len(rows) - MOST_BARS),
    }


@dataclass(frozen=True)
class StepLine:
    """One step of a recipe: `sign` "=" where the parent has it too; options as (name, value, default or None)."""

    sign: str
    label: str
    optimizer: str
    changed: list[tuple[str, Any, Any]]
    usual: list[tuple[str, Any, Any]]


def diff_of(search: Search, trial: SearchTrial) -> list[StepLine]:
    """What was done to the parent, after what had been done to make the parent itself."""
    known = optimizers()
    before = [("=", step) for step in search.artifact.recipe.get("steps") or []]
    lines = []
    for sign, step in [*before, *(("+", step) for step in trial.steps)]:
        plugin = known.get(step["optimizer"])
        usual = plugin.Options().model_dump(mode="json") if plugin else {}
        options = [(name, value, usual.get(name)) for name, value in step["options"].items()]
        lines.append(
            StepLine(
                sign,
                optimizer_words(step["optimizer"]),
                step["optimizer"],
                [each for each in options if each[1] != each[2]],
                [each for each in options if each[1] == each[2]],
            )
        )
    return lines


def confusions_of(trial: SearchTrial) -> list[dict[str, Any]]:
    """Both matrices with a shade for each cell, of the classes that changed most where there are many."""
    found = trial.confusion
    if not found:
        return []
    labels, before, after = found["labels"], found["before"], found["after"]
    moved = [sum(abs(a - b) for a, b in zip(before[at], after[at], strict=True)) for at in range(len(labels))]
    shown = sorted(sorted(range(len(labels)), key=lambda at: -moved[at])[:MOST_CLASSES])
    return [
        {
            "title": title,
            "labels": [labels[at] for at in shown],
            "hidden": len(labels) - len(shown),
            "rows": [
                {"label": labels[at], "cells": [_cell(table[at], to, at) for to in shown]} for at in shown
            ],
        }
        for title, table in ((_("Before"), before), (_("After"), after))
    ]  # fmt: skip


def _cell(row: list[int], to: int, truth: int) -> dict[str, Any]:
    count, total = row[to], max(1, sum(row))
    shade = min(SHADES, -(-SHADES * count // total)) if count else 0
    return {"count": count, "shade": f"{'right' if to == truth else 'wrong'}-{shade}"}
