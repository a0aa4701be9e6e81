"""Reads of windows, alerts and policies. Windows are always summed in the database over a bounded span."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection
from django.db.models import Max, Prefetch
from django.shortcuts import get_object_or_404
from django.utils import timezone

from deployments.models import DESIRED, Deployment, DeploymentState
from engine.formats.latency import quantile
from monitoring.models import Alert, AlertState, Firing, Policy
from monitoring.performance import performance_series
from slipway.accounts import policy
from slipway.accounts.models import Project
from slipway.accounts.pages import Slice, newest

SPANS = {900: 10, 3600: 60, 21600: 300}  # seconds shown: seconds of one point

_SUMS = """
SELECT deployment_id, sum(requests)::bigint, sum(errors)::bigint FROM monitoring_window
WHERE deployment_id = ANY(%(ids)s) AND start >= %(since)s GROUP BY 1
"""
_SKETCHES = """
SELECT deployment_id, entry.key, sum(entry.value::bigint)::bigint
FROM monitoring_window, jsonb_each_text(latency) entry
WHERE deployment_id = ANY(%(ids)s) AND start >= %(since)s GROUP BY 1, 2
"""
_POINTS = """
SELECT deployment_id, (floor(extract(epoch FROM start) / %(step)s) * %(step)s)::bigint,
       sum(requests)::bigint, sum(errors)::bigint FROM monitoring_window
WHERE deployment_id = ANY(%(ids)s) AND start >= %(since)s GROUP BY 1, 2
"""
_POINT_SKETCHES = """
SELECT deployment_id, (floor(extract(epoch FROM start) / %(step)s) * %(step)s)::bigint, entry.key,
       sum(entry.value::bigint)::bigint FROM monitoring_window, jsonb_each_text(latency) entry
WHERE deployment_id = ANY(%(ids)s) AND start >= %(since)s GROUP BY 1, 2, 3
"""
_OUTPUTS = """
SELECT deployment_id, output.key, class.key, sum(class.value::bigint)::bigint
FROM monitoring_window, jsonb_each(outputs) output, jsonb_each_text(output.value) class
WHERE deployment_id = ANY(%(ids)s) AND start >= %(since)s GROUP BY 1, 2, 3
"""


def _rows(sql: str, ids: Iterable[int], seconds: float, **more: Any) -> list[tuple[Any, ...]]:
    wanted = list(ids)
    if not wanted:
        return []
    since = timezone.now() - dt.timedelta(seconds=seconds)
    with connection.cursor() as cursor:
        cursor.execute(sql, {"ids": wanted, "since": since, **more})
        return cursor.fetchall()


def _ms(sketch: dict[str, int], q: float) -> float | None:
    value = quantile(sketch, q)
    return None if value is None else value / 1000


def _figures(counts: Sequence[int], sketch: dict[str, int], minutes: float) -> dict[str, Any]:
    requests, errors = counts
    return {
        "requests": requests,
        "errors": errors,
        "per_minute": requests / minutes,
        "error_share": errors / requests if requests else None,
        "p50_ms": _ms(sketch, 0.5),
        "p95_ms": _ms(sketch, 0.95),
        "p99_ms": _ms(sketch, 0.99),
    }


def traffic(ids: Iterable[int], minutes: int = 5) -> dict[int, dict[str, Any]]:
    """Figures of each deployment over the last minutes; all of them are there, without traffic at 0."""
    wanted = list(ids)
    sums = {row[0]: row[1:] for row in _rows(_SUMS, wanted, minutes * 60)}
    sketches: dict[int, dict[str, int]] = defaultdict(dict)
    for deployment, bucket, count in _rows(_SKETCHES, wanted, minutes * 60):
        sketches[deployment][bucket] = count
    return {pk: _figures(sums.get(pk, (0, 0)), sketches[pk], minutes) for pk in wanted}


def traffic_of_models(models: list[int], minutes: int = 30) -> dict[int, dict[str, Any]]:
    """Figures and requests per minute, oldest first, of the live deployments of each model."""
    rows = Deployment.objects.filter(state=DeploymentState.LIVE, artifact__version__model__in=models)
    owner = dict(rows.values_list("pk", "artifact__version__model_id"))
    sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    sparks: dict[int, list[int]] = {}
    now = int(timezone.now().timestamp()) // 60 * 60
    for deployment, at, requests, errors in _rows(_POINTS, owner, minutes * 60, step=60):
        model = owner[deployment]
        sums[model][0] += requests
        sums[model][1] += errors
        spark = sparks.setdefault(model, [0] * minutes)
        place = minutes - (now - at) // 60  # the running minute is not over yet, so it is left out
        if 0 <= place < minutes:
            spark[place] += requests
    sketches: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for deployment, bucket, count in _rows(_SKETCHES, owner, minutes * 60):
        sketches[owner[deployment]][bucket] += count
    return {
        model: {**_figures(sums[model], sketches[model], minutes), "spark": sparks.get(model)}
        for model in set(owner.values())
    }


def series(deployments: list[Deployment], seconds: int = 900) -> dict[str, Any]:
    """Points of each deployment on one time axis: req/min, error share, latency quantiles, and the lines of
    `performance_series` (queue, compute, cached, rejected)."""
    step = SPANS[seconds]
    ids = [row.pk for row in deployments]
    end = int(timezone.now().timestamp()) // step * step - step  # the running point is not over yet
    times = list(range(end - seconds + step, end + 1, step))
    index = {at: place for place, at in enumerate(times)}
    blank: list[Any] = [None] * len(times)
    lines = {pk: {name: list(blank) for name in ("rate", "errors", "p50", "p95", "p99")} for pk in ids}
    for pk, at, requests, errors in _rows(_POINTS, ids, seconds + 2 * step, step=step):
        if at in index:
            lines[pk]["rate"][index[at]] = requests * 60 / step
            lines[pk]["errors"][index[at]] = 100 * errors / requests if requests else None
    sketches: dict[tuple[int, int], dict[str, int]] = defaultdict(dict)
    for pk, at, bucket, count in _rows(_POINT_SKETCHES, ids, seconds + 2 * step, step=step):
        sketches[pk, at][bucket] = count
    for (pk, at), sketch in sketches.items():
        if at in index:
            for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                lines[pk][name][index[at]] = round(_ms(sketch, q) or 0, 4)
    more = performance_series(ids, times=times, step=step)
    return {"times": times, "lines": [{"deployment": pk, **lines[pk], **more[pk]} for pk in ids]}


TWIN = ("rate", "errors", "p50", "p95", "p99", "queue", "compute", "cached", "rejected")


def twin(data: dict[str, Any], rows: int = 15) -> list[dict[str, Any]]:
    """The newest points of `series` as rows of a table: the same figures for those who do not see charts."""
    places = [
        place for place in range(len(data["times"])) if any(line["rate"][place] is not None for line in data["lines"])
    ]
    return [
        {
            "at": dt.datetime.fromtimestamp(data["times"][place], dt.UTC),
            "cells": [{name: line[name][place] for name in TWIN} for line in data["lines"]],
        }
        for place in reversed(places[-rows:])
    ]


def histograms(deployments: list[Deployment], minutes: int = 15) -> list[dict[str, Any]]:
    """Predicted classes of each output: rows of {label, cells: [{count, share}]} in the order of `deployments`."""
    ids = [row.pk for row in deployments]
    found: dict[str, dict[str, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    totals: dict[tuple[str, int], int] = defaultdict(int)
    for pk, output, label, count in _rows(_OUTPUTS, ids, minutes * 60):
        found[output][label][pk] = count
        totals[output, pk] += count
    result = []
    for output, classes in sorted(found.items()):
        rows: list[dict[str, Any]] = []
        for label in sorted(
            classes, key=lambda text: (text == "other", not text.lstrip("-").isdigit(), text.zfill(12))
        ):
            counts = [classes[label].get(pk, 0) for pk in ids]
            shares = [
                count / totals[output, pk] if totals[output, pk] else 0 for pk, count in zip(ids, counts, strict=True)
            ]
            rows.append(
                {
                    "label": label,
                    "cells": [
                        {"count": c, "share": s, "percent": 100 * s} for c, s in zip(counts, shares, strict=True)
                    ],
                }
            )
        top = max((cell["percent"] for row in rows for cell in row["cells"]), default=0) or 1
        for row in rows:
            for cell in row["cells"]:
                cell["bar"] = 100 * cell["percent"] / top
        result.append({"output": output, "rows": rows})
    return result


def alerts_page(user: Any, project: Project | None, state: str, before: str | None) -> Slice[Alert]:
    """Alerts, newest first; without a state the open ones."""
    rows = policy.visible(user, Alert.objects.select_related("project"))
    if project:
        rows = rows.filter(project=project)
    if state in AlertState.values:
        rows = rows.filter(state=state)
    elif state != "all":
        rows = rows.exclude(state=AlertState.RESOLVED)
    return newest(rows, before)


def alert_get(user: Any, pk: int) -> Alert:
    return get_object_or_404(policy.visible(user, Alert.objects.all()), pk=pk)


def watched(user: Any, project: Project | None, limit: int = 50) -> list[dict[str, Any]]:
    """Every live deployment with its figures and the time of its newest window."""
    rows = Deployment.objects.filter(state__in=DESIRED).select_related("endpoint__project", "artifact__version__model")
    rows = policy.visible(user, rows)
    if project:
        rows = rows.filter(endpoint__project=project)
    found = list(rows.order_by("endpoint__name", "-pk")[:limit])
    figures = traffic([row.pk for row in found])
    since = timezone.now() - dt.timedelta(hours=1)
    seen = Deployment.objects.filter(pk__in=[row.pk for row in found], windows__start__gte=since)
    last = dict(seen.annotate(last=Max("windows__start")).values_list("pk", "last"))
    return [{"deployment": row, "last": last.get(row.pk), **figures[row.pk]} for row in found]


def policies_page(user: Any, project: Project | None, limit: int = 100) -> list[Policy]:
    """Retraining policies with their newest firings."""
    rows = policy.visible(user, Policy.objects.select_related("model__project"))
    if project:
        rows = rows.filter(model__project=project)
    newest_firings = Firing.objects.select_related("job").order_by("-id")[:3]
    return list(rows.prefetch_related(Prefetch("firings", newest_firings, to_attr="latest"))[:limit])


def policy_get(user: Any, pk: int) -> Policy:
    return get_object_or_404(policy.visible(user, Policy.objects.select_related("model__project")), pk=pk)
