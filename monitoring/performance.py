"""Where the time of requests goes: waiting, model runs, batches, the response cache, and what was refused.

Reads for the endpoint's page and its API. Everything is summed in the database over a bounded span, in a
number of queries that does not depend on how many deployments or windows there are.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import orjson
from django.db import connection
from django.utils import timezone

from engine.formats.latency import quantile

# What `figures` takes, in this order.
COLUMNS = """
    sum(requests)::bigint, sum(errors)::bigint, counts_sum(latency)::text, sum(queue_us)::text,
    sum(compute_us)::text, counts_sum(batches)::text, sum(cache_hits)::bigint, sum(rejected)::bigint
"""
_SUMS = f"""
SELECT deployment_id, {COLUMNS}
FROM monitoring_window WHERE deployment_id = ANY(%(ids)s) AND start >= %(since)s GROUP BY 1
"""  # noqa: S608 - the columns are ours
_POINTS = """
SELECT deployment_id, (floor(extract(epoch FROM start) / %(step)s) * %(step)s)::bigint,
       sum(requests)::bigint, sum(queue_us)::text, sum(compute_us)::text, sum(cache_hits)::bigint,
       sum(rejected)::bigint
FROM monitoring_window WHERE deployment_id = ANY(%(ids)s) AND start >= %(since)s GROUP BY 1, 2
"""
LINES = ("queue", "compute", "cached", "rejected")


def performance(ids: Iterable[int], minutes: float = 5) -> dict[int, dict[str, Any]]:
    """{deployment id: figures} over the last minutes, in one query. Every id is there, without traffic at 0.

    requests, errors, cache_hits, rejected: counts. per_second: requests a second. error_share: 0 to 1 or None.
    p50_ms, p95_ms, p99_ms: latency in ms or None. queue_ms, compute_ms: means of a request that the model
    answered, None while no server has told them. batches: [{size, runs, share}] by rising size, share of the
    model runs from 0 to 1; runs: all of them; mean_batch: requests in a run or None. cache_hit_share: 0 to 1
    or None. `rejected` are answers that a limit or a quota refused; they are not among `requests`.
    """
    wanted = list(ids)
    since = timezone.now() - dt.timedelta(minutes=minutes)
    rows = {row[0]: row[1:] for row in _read(_SUMS, wanted, since)}
    blank = (0, 0, "{}", "0", "0", "{}", 0, 0)
    return {pk: figures(rows.get(pk, blank), minutes * 60) for pk in wanted}


def performance_series(ids: Iterable[int], *, times: list[int], step: int) -> dict[int, dict[str, list[Any]]]:
    """Lines of each deployment over the points of a time axis (epoch seconds, `step` apart), in one query.

    queue and compute in ms, cached in percent of the requests, rejected in answers a minute; None where a
    point has no window. `selectors.series` calls this for its own axis.
    """
    wanted, index = list(ids), {at: place for place, at in enumerate(times)}
    lines: dict[int, dict[str, list[Any]]] = {pk: {name: [None] * len(times) for name in LINES} for pk in wanted}
    if not times:
        return lines
    since = dt.datetime.fromtimestamp(times[0], dt.UTC)
    for pk, at, requests, queue, compute, hits, rejected in _read(_POINTS, wanted, since, step=step):
        if at not in index:
            continue
        queue_ms, compute_ms = _means(requests - hits, int(queue), int(compute))
        found = {
            "queue": queue_ms, "compute": compute_ms, "cached": 100 * hits / requests if requests else None,
            "rejected": rejected * 60 / step,
        }  # fmt: skip
        for name, value in found.items():
            lines[pk][name][index[at]] = value
    return lines


def histogram(batches: dict[str, int]) -> list[dict[str, Any]]:
    """[{size, runs, share}] of {requests in a model run: model runs}, by rising size."""
    total = sum(batches.values())
    pairs = sorted((int(size), runs) for size, runs in batches.items() if runs)
    return [{"size": size, "runs": runs, "share": runs / total} for size, runs in pairs]


def _read(sql: str, ids: list[int], since: dt.datetime, **more: Any) -> list[tuple[Any, ...]]:
    if not ids:
        return []
    with connection.cursor() as cursor:
        cursor.execute(sql, {"ids": ids, "since": since, **more})
        return cursor.fetchall()


def _means(answered: int, queue_us: int, compute_us: int) -> tuple[float | None, float | None]:
    """(queue, compute) in ms of one request. A server that tells no times has sums of 0: that is not known."""
    if answered <= 0 or not (queue_us or compute_us):
        return None, None
    return round(queue_us / answered / 1000, 4), round(compute_us / answered / 1000, 4)


def figures(row: tuple[Any, ...], seconds: float) -> dict[str, Any]:
    """The figures of `performance` from a row of `COLUMNS` that covers so many seconds."""
    requests, errors, latency, queue, compute, batches, hits, rejected = row
    sketch, sizes = orjson.loads(latency), orjson.loads(batches)
    runs = sum(sizes.values())
    queue_ms, compute_ms = _means(requests - hits, int(queue), int(compute))
    found = {
        "requests": requests,
        "errors": errors,
        "per_second": round(requests / seconds, 3),
        "error_share": errors / requests if requests else None,
        "queue_ms": queue_ms,
        "compute_ms": compute_ms,
        "batches": histogram(sizes),
        "runs": runs,
        "mean_batch": sum(int(size) * count for size, count in sizes.items()) / runs if runs else None,
        "cache_hits": hits,
        "cache_hit_share": hits / requests if requests else None,
        "rejected": rejected,
    }
    for name, q in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        value = quantile(sketch, q)
        found[name] = None if value is None else round(value / 1000, 3)
    return found
