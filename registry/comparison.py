"""Two to five versions as a table of facts, metrics and artifacts; the first is the base."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from registry.models import Version

_LESS_IS_BETTER = ("loss", "error", "mae", "mse", "rmse", "latency", "p50", "p95", "p99", "ms", "size")


def _row(name: str, values: list[Any], *, numeric: bool = False) -> dict[str, Any]:
    cells = [{"value": value, "delta": None, "good": None} for value in values]
    if numeric and isinstance(values[0], int | float):
        less = any(word in name.lower() for word in _LESS_IS_BETTER)
        for cell in cells[1:]:
            if isinstance(cell["value"], int | float):
                delta = cell["value"] - values[0]
                cell["delta"] = f"{delta:+.4g}" if delta else None
                cell["good"] = None if delta == 0 else (delta < 0) == less
    return {"name": name, "cells": cells, "same": all(value == values[0] for value in values)}


def _numbers(versions: list[Version], field: str) -> list[dict[str, Any]]:
    dicts = [getattr(version, field) for version in versions]
    names = sorted({name for one in dicts for name in one})
    return [_row(name, [one.get(name) for one in dicts], numeric=field == "metrics") for name in names[:200]]


def _artifacts(versions: list[Version]) -> list[dict[str, Any]]:
    tables = [{artifact.label: artifact for artifact in version.artifacts.all()} for version in versions]
    rows = []
    for label in sorted({label for table in tables for label in table}):
        found = [table.get(label) for table in tables]
        rows.append(
            _row(
                _("%(label)s size, bytes") % {"label": label},
                [one and one.size for one in found],
                numeric=True,
            )
        )
        measured = [next(iter(one.measurements.all()), None) if one else None for one in found]
        if any(measured):
            values = [one and one.latency_p50_ms for one in measured]
            rows.append(_row(_("%(label)s latency p50, ms") % {"label": label}, values, numeric=True))
    return rows


def table(versions: list[Version], *, only_differences: bool) -> list[dict[str, Any]]:
    """Groups of rows {name, cells, same}; rows that are the same everywhere can be left out."""
    facts = [
        _row(_("State"), [version.get_state_display() for version in versions]),
        _row(_("Approval"), [version.get_approval_display() for version in versions]),
        _row(_("Framework"), [version.framework for version in versions]),
        _row(_("Origin"), [version.get_origin_display() for version in versions]),
    ]
    groups: list[dict[str, Any]] = [
        {"title": _("Facts"), "rows": facts},
        {"title": _("Metrics"), "rows": _numbers(versions, "metrics")},
        {"title": _("Artifacts"), "rows": _artifacts(versions)},
        {"title": _("Parameters"), "rows": _numbers(versions, "params")},
    ]
    for group in groups:
        if only_differences:
            group["rows"] = [row for row in group["rows"] if not row["same"]]
    return [group for group in groups if group["rows"]]
