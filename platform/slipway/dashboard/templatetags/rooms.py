"""Figures and links that pages of one room show of another room's records."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from django import template
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from deployments import selectors as deployed
from deployments.servers import load_of
from monitoring import selectors as monitoring
from monitoring.performance import performance
from slipway.dashboard.words import duration
from slipway.environment import environment

register = template.Library()


@register.simple_tag
def model_traffic(models: Any) -> dict[int, dict[str, Any]]:
    """{model id: spark, per_minute, p95_ms, error_share} of the last 30 minutes."""
    return monitoring.traffic_of_models([model.pk for model in models])


@register.simple_tag
def deployment_traffic(deployments: Any) -> dict[int, dict[str, Any]]:
    """{deployment id: requests, per_minute, error_share, p50_ms, p95_ms, p99_ms} of the last five minutes."""
    return monitoring.traffic([row.pk for row in deployments], minutes=5)


@register.simple_tag
def job_link(number: int) -> SafeString:
    """A job by its number."""
    return format_html('<a href="{}">{}</a>', reverse("job", args=[number]), _("job %(n)s") % {"n": number})


@register.simple_tag
def change_of(rollout: Any) -> str:
    """What a rollout replaces by what."""
    old, new = rollout.stable.artifact.version.number, rollout.candidate.artifact.version.number
    return _("Version %(old)s → version %(new)s") % {"old": old, "new": new}


_RESULT_PAGES = {
    "version_id": "version",
    "version": "version",
    "model_id": "model",
    "rollout_id": "rollout",
    "job_id": "job",
    "search": "lab",
    "search_id": "lab",
}


def plain(value: Any) -> str:
    """A JSON value on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)[:500]


@register.simple_tag
def result_link(name: str, value: Any) -> SafeString | str:
    """A value of a job's result; ids of records link to their pages."""
    page = _RESULT_PAGES.get(name)
    if page and isinstance(value, int):
        return format_html('<a href="{}">{}</a>', reverse(page, args=[value]), value)
    return format_html("<code>{}</code>", plain(value)) if isinstance(value, dict | list) else plain(value)


@register.simple_tag
def endpoint_figures(deployments: list[Any]) -> dict[str, Any]:
    """Rows of an endpoint's deployments with figures, and both split bars with their words."""
    figures = performance([row.pk for row in deployments], minutes=5)
    total = sum(row["requests"] for row in figures.values())
    rows = []
    for index, row in enumerate(deployments):
        share = figures[row.pk]["requests"] / total if total else None
        rows.append(
            {
                "deployment": row,
                "label": deployed.label_of(row),
                "tone": index % 4 + 1,
                "observed": share,
                **figures[row.pk],
            }
        )
    desired = [{"share": row["deployment"].weight, "tone": row["tone"]} for row in rows]
    observed = [{"share": 100 * (row["observed"] or 0), "tone": row["tone"]} for row in rows]
    return {
        "rows": rows,
        "desired": desired,
        "observed": observed,
        "desired_text": " / ".join(f"{one['share']}" for one in desired) + " %",
        "observed_text": (" / ".join(f"{one['share']:.1f}" for one in observed) + " %") if total else _("no requests"),
    }


def _seconds(span: str) -> int:
    return int(span) if span.isdigit() and int(span) in monitoring.SPANS else 900


@register.simple_tag
def series_twin(deployments: list[Any], span: str) -> list[dict[str, Any]]:
    """The charts as rows of a table."""
    return monitoring.twin(monitoring.series(deployments, _seconds(span)))


@register.simple_tag
def series_marks(endpoint: Any, span: str) -> list[dict[str, Any]]:
    """[{at, label}]: when a rollout moved traffic in the span of the charts."""
    now = timezone.now()
    marks = deployed.marks_of(endpoint, int(now.timestamp()) - _seconds(span))
    return [{"at": dt.datetime.fromtimestamp(mark["at"], dt.UTC), "label": mark["label"]} for mark in marks]


@register.simple_tag
def output_histograms(deployments: list[Any]) -> list[dict[str, Any]]:
    """Predicted classes of each output, for each deployment."""
    return monitoring.histograms(deployments)


@register.simple_tag
def load_rows(rows: list[dict[str, Any]], servers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `endpoint_figures` with what the living processes measured of each deployment (`load`)."""
    load = load_of([row["deployment"] for row in rows], servers)
    most = max((one["memory_bytes"] for one in load.values()), default=0) or 1
    return [
        {**row, "load": load[pk], "memory_percent": 100 * load[pk]["memory_bytes"] / most}
        for row in rows
        for pk in [row["deployment"].pk]
    ]


@register.simple_tag
def batch_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """[{size, cells: [{runs, share, bar}]}]: how many requests shared a model run, for each deployment."""
    sizes = sorted({one["size"] for row in rows for one in row["batches"]})
    top = max((one["share"] for row in rows for one in row["batches"]), default=0) or 1
    none = {"runs": 0, "share": 0}
    found = []
    for size in sizes:
        cells = [next((one for one in row["batches"] if one["size"] == size), none) for row in rows]
        found.append({"size": size, "cells": [{**cell, "bar": 100 * cell["share"] / top} for cell in cells]})
    return found


@register.filter
def deployment_label(deployment: Any) -> str:
    """How charts and tables name a deployment."""
    return deployed.label_of(deployment)


@register.filter
def per_second(per_minute: float | None) -> float | None:
    """A rate a minute as a rate a second."""
    return None if per_minute is None else per_minute / 60


@register.simple_tag
def any_of(rows: list[dict[str, Any]], name: str) -> bool:
    """Whether a figure is there, and not 0, in any of the rows."""
    return any(row.get(name) for row in rows)


@register.simple_tag
def behind(row: dict[str, Any], generation: int) -> tuple[str, SafeString | str]:
    """(tone, words): whether a process has the newest desired state, and since when not; a module counts on."""
    count = generation - row["server"].generation
    if count <= 0:
        return "ok", _("up to date")
    if row["behind_s"] is None:
        return "wait", _("one change behind") if count == 1 else _("%(n)d changes behind") % {"n": count}
    words = _("one change behind for %(span)s") if count == 1 else _("%(n)d changes behind for %(span)s")
    before, _span, after = (words % {"n": count, "span": "\0"}).partition("\0")
    seconds = max(1, int(row["behind_s"]))
    span = format_html('<span data-lasting="{}">{}</span>', seconds, duration(seconds))
    return "wait", format_html("{}{}{}", before, span, after)


@register.simple_tag
def chart_names(only: str = "", rows: Any = ()) -> list[tuple[str, str, str]]:
    """(series, title, unit) of the charts of a page; the cache's and the limits' only where there is something."""
    charts = [
        ("rate", _("Requests per second"), ""),
        ("errors", _("Errors, %(unit)s") % {"unit": "%"}, "%"),
        ("p50", _("p50 latency, ms"), "ms"),
        ("p95", _("p95 latency, ms"), "ms"),
        ("p99", _("p99 latency, ms"), "ms"),
    ]
    if any_of(rows, "cache_hits"):
        charts.append(("cached", _("Answered from the cache, %(unit)s") % {"unit": "%"}, "%"))
    if any_of(rows, "rejected"):
        charts.append(("rejected", _("Refused by a limit, per minute"), ""))
    return [chart for chart in charts if not only or chart[0] == only]


_SERVER_STATES = {"ready": "ok", "loading": "loading", "failed": "bad", "draining": "draining"}


@register.filter
def server_tone(state: str) -> str:
    return _SERVER_STATES.get(state, "quiet")


@register.filter
def server_word(state: str) -> str:
    """What a server says about a deployment, in the person's language."""
    words = {"ready": _("ready"), "loading": _("loading"), "failed": _("failed"), "draining": _("draining")}
    return words.get(state, state)


@register.simple_tag
def current_servers(servers: list[dict[str, Any]], generation: int) -> str:
    """How many living processes have the desired generation."""
    alive = [row for row in servers if row["alive"]]
    if not alive:
        return _("no process has reported lately")
    current = sum(row["server"].generation >= generation for row in alive)
    return _("%(n)d of %(all)d processes at generation %(g)d") % {"n": current, "all": len(alive), "g": generation}


@register.simple_tag
def pair(shares: list[float]) -> str:
    """24.6 / 75.4 %"""
    return " / ".join(f"{share:.1f}" for share in shares) + " %"


@register.simple_tag
def size_change(new: Any, old: Any) -> SafeString | str:
    """The change in size against the artifact it replaces."""
    if not old.size or new.size == old.size:
        return ""
    share = new.size / old.size - 1
    tone = "good" if share < 0 else "warn"
    return format_html('<span class="pill {}">{}</span>', tone, f"{share:+.0%}".replace("%", " %").replace("-", "−"))


@register.inclusion_tag("ui/snippet.html")
def rollout_snippet(rollout: Any) -> dict[str, str]:
    """How to follow a rollout with the command line."""
    return {"text": f"slipway rollout watch {rollout.endpoint.name}/{rollout.pk}", "label": ""}


_ENTRY_PAGES = {"model": "model", "version": "version", "rollout": "rollout", "job": "job"}


@register.simple_tag
def entry_link(entry: Any) -> SafeString | str:
    """The record that an audit entry is about, linked where it has a page."""
    label = f"{entry.object_type} {entry.data.get('name') or entry.object_id}"
    page, args = _ENTRY_PAGES.get(entry.object_type), [entry.object_id]
    if entry.object_type == "endpoint" and entry.data.get("name"):
        page, args = "endpoint", [entry.data["name"]]
    if page is None:
        return label
    try:
        return format_html('<a href="{}">{}</a>', reverse(page, args=args), label)
    except NoReverseMatch:
        return label


@register.simple_tag
def hook_url(policy: Any) -> str:
    """Where a policy's signed hook is."""
    return f"{environment.public_base}{reverse('hook', args=[policy.pk])}"
