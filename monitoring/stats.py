"""Sums of windows: over a rollout's step, over the last minutes, per deployment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import orjson
from django.db import connection
from django.utils import timezone

from deployments.evidence import Counts
from deployments.models import Endpoint
from engine.formats.latency import quantile
from monitoring.performance import COLUMNS, figures
from monitoring.telemetry import SECONDS


def counts_since(*, deployment_ids: Iterable[int], since: dt.datetime) -> dict[int, Counts]:
    """{deployment id: counts} of the windows that began at or after `since`."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT deployment_id, sum(requests), sum(errors), counts_sum(latency)::text
            FROM monitoring_window WHERE deployment_id = ANY(%s) AND start >= %s GROUP BY deployment_id
            """,
            [list(deployment_ids), since],
        )
        return {
            row[0]: Counts(requests=int(row[1]), errors=int(row[2]), latency=_json(row[3])) for row in cursor.fetchall()
        }


def step_counts(*, deployment_ids: Iterable[int], step_started_at: dt.datetime | None) -> dict[int, Counts]:
    """Counts of a rollout's step. The window in which the step began also holds requests of the step
    before it, so counting starts with the next one; nothing is judged twice or too early."""
    if step_started_at is None:
        return {}
    epoch = step_started_at.timestamp()
    first = dt.datetime.fromtimestamp((epoch // SECONDS + 1) * SECONDS, dt.UTC)
    return counts_since(deployment_ids=deployment_ids, since=first)


def endpoint_stats(*, endpoint: Endpoint, since: dt.datetime) -> list[dict[str, Any]]:
    """The figures of `performance` (without windows: no row) and the output histograms per deployment."""
    seconds = max((timezone.now() - since).total_seconds(), SECONDS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT d.id, v.number, histograms_sum(w.outputs)::text, {COLUMNS}
            FROM monitoring_window w
            JOIN deployments_deployment d ON d.id = w.deployment_id
            JOIN registry_artifact a ON a.id = d.artifact_id
            JOIN registry_version v ON v.id = a.version_id
            WHERE d.endpoint_id = %s AND w.start >= %s
            GROUP BY d.id, v.number ORDER BY d.id
            """,  # noqa: S608 - the columns are ours
            [endpoint.pk, since],
        )
        rows = cursor.fetchall()
    return [
        {
            "deployment": row[0],
            "version": row[1],
            "outputs": _json(row[2]),
            **figures(row[3:], seconds),
        }
        for row in rows
    ]


def percentiles(latency: dict[str, int]) -> dict[str, float | None]:
    """p50, p95 and p99 in milliseconds."""
    result: dict[str, float | None] = {}
    for name, q in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        value = quantile(latency, q)
        result[name] = None if value is None else round(value / 1000, 3)
    return result


def _json(text: str) -> Any:
    return orjson.loads(text)
