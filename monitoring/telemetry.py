"""Reports of the inference servers: what they run, and their five-second windows. Idempotent by (instance, seq)."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import orjson
from django.db import connection, transaction
from django.utils import timezone
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from deployments.models import Deployment, Server
from slipway import events

Count = Annotated[int, Field(ge=0, le=10**9)]
Serial = Annotated[int, Field(ge=0, le=2**62)]
Micros = Annotated[float, Field(ge=0, le=10**15, allow_inf_nan=False)]
# PostgreSQL stores no NUL, and half a surrogate pair is no text at all.
Text = Annotated[str, AfterValidator(lambda text: text.replace("\x00", "").encode("utf-8", "replace").decode())]
SECONDS = 5
LAST_START = 250_000_000_000  # in the year 9892: the calendar ends soon after
LARGEST = 2**31 - 1
LONGEST_US = 10**18


class WindowReport(BaseModel):
    """Counts of one deployment in one window; `start` is in epoch seconds, a multiple of five."""

    model_config = ConfigDict(extra="ignore")

    deployment: Annotated[str, Field(pattern=r"^\d{1,18}$")]
    start: Annotated[int, Field(ge=0, le=LAST_START, multiple_of=SECONDS)]
    requests: Count
    errors: Count
    latency: Annotated[dict[Annotated[str, Field(pattern=r"^\d{1,3}$")], Count], Field(max_length=300)] = {}
    outputs: Annotated[dict[Text, Annotated[dict[Text, Count], Field(max_length=65)]], Field(max_length=8)] = {}
    queue_us: Micros = 0
    compute_us: Micros = 0
    batches: Annotated[dict[Annotated[str, Field(pattern=r"^[1-9]\d{0,3}$")], Count], Field(max_length=300)] = {}
    cache_hits: Count = 0
    rejected: Count = 0


class BatchingReport(BaseModel):
    """What measuring at load showed: so many requests at most in one model run, and why."""

    model_config = ConfigDict(extra="ignore")

    max: Annotated[int, Field(ge=1, le=9999)]
    why: Annotated[Text, Field(max_length=500)] = ""


class DeploymentReport(BaseModel):
    model_config = ConfigDict(extra="ignore")

    state: Annotated[str, Field(pattern="^(loading|ready|failed|draining)$")]
    reason: Annotated[Text, Field(max_length=2000)] = ""
    sha256: Annotated[Text, Field(max_length=64)] = ""
    memory_bytes: Serial = 0
    cost_us: Micros | None = None
    batching: BatchingReport | None = None
    provider: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}$")] | None = None


class Report(BaseModel):
    """What one server process says about itself (see docs/architecture.md)."""

    model_config = ConfigDict(extra="ignore")

    instance: Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[\w.:-]+$")]
    process: Annotated[int, Field(ge=0, le=4096)] = 0
    seq: Serial
    generation: Serial
    memory_bytes: Serial = 0
    pid: Annotated[int, Field(ge=0, le=LARGEST)] | None = None
    started: Annotated[float, Field(ge=0, le=LAST_START, allow_inf_nan=False)] | None = None
    version: Annotated[Text, Field(max_length=40)] = ""
    deployments: Annotated[dict[Text, DeploymentReport], Field(max_length=2000)] = {}
    windows: Annotated[list[WindowReport], Field(max_length=5000)] = []


@transaction.atomic
def report_accept(*, report: Report) -> bool:
    """Stores a report; False when this (or a later) seq of the instance was stored before."""
    server, created = Server.objects.get_or_create(
        instance=report.instance, defaults={"process": report.process, "seq": report.seq}
    )
    deployments = {key: value.model_dump(exclude_none=True) for key, value in report.deployments.items()}
    told = {"memory_bytes": report.memory_bytes, "pid": report.pid, "version": report.version}
    if report.started is not None:
        told["started_at"] = dt.datetime.fromtimestamp(report.started, dt.UTC)
    changed = Server.objects.filter(pk=server.pk, **({} if created else {"seq__lt": report.seq})).update(
        seq=report.seq, generation=report.generation, deployments=deployments, seen_at=timezone.now(), **told
    )
    if not changed:
        return False
    endpoints = dict(
        Deployment.objects.filter(pk__in={int(window.deployment) for window in report.windows}).values_list(
            "pk", "endpoint_id"
        )
    )
    # Sorted, so that two servers that report at once lock the rows in the same order.
    for window in sorted(report.windows, key=lambda row: (int(row.deployment), row.start)):
        if int(window.deployment) in endpoints:
            _window_add(window)
    projects = Deployment.objects.filter(pk__in=endpoints).values_list("endpoint__project_id", "endpoint_id")
    for project_id, endpoint_id in projects.distinct():
        events.ring(project_id, "window", endpoint_id)
    if created or server.generation != report.generation or server.deployments != deployments:
        _ring_endpoints(report)
    return True


def _ring_endpoints(report: Report) -> None:
    keys = [int(key) for key in report.deployments if key.isdecimal()]
    rows = Deployment.objects.filter(pk__in=keys).values_list("endpoint__project_id", "endpoint_id")
    for project_id, endpoint_id in rows.distinct():
        events.ring(project_id, "endpoint", endpoint_id)


def _window_add(window: WindowReport) -> None:
    """Adds the deltas to the window's row; the sketches are merged key by key in the database."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO monitoring_window (deployment_id, start, requests, errors, latency, outputs,
                                           queue_us, compute_us, batches, cache_hits, rejected)
            VALUES (%(deployment)s, %(start)s, %(requests)s, %(errors)s, %(latency)s, %(outputs)s,
                    %(queue_us)s, %(compute_us)s, %(batches)s, %(cache_hits)s, %(rejected)s)
            ON CONFLICT (deployment_id, start) DO UPDATE SET
                requests = least(monitoring_window.requests::bigint + excluded.requests, %(largest)s),
                errors = least(monitoring_window.errors::bigint + excluded.errors, %(largest)s),
                latency = counts_added(monitoring_window.latency, excluded.latency),
                outputs = histograms_added(monitoring_window.outputs, excluded.outputs),
                queue_us = least(monitoring_window.queue_us + excluded.queue_us, %(longest)s),
                compute_us = least(monitoring_window.compute_us + excluded.compute_us, %(longest)s),
                batches = counts_added(monitoring_window.batches, excluded.batches),
                cache_hits = least(monitoring_window.cache_hits::bigint + excluded.cache_hits, %(largest)s),
                rejected = least(monitoring_window.rejected::bigint + excluded.rejected, %(largest)s)
            """,
            {
                "deployment": int(window.deployment),
                "start": dt.datetime.fromtimestamp(window.start, dt.UTC),
                "requests": window.requests,
                "errors": min(window.errors, window.requests),
                "latency": orjson.dumps(window.latency).decode(),
                "outputs": orjson.dumps(window.outputs).decode(),
                "queue_us": round(window.queue_us),
                "compute_us": round(window.compute_us),
                "batches": orjson.dumps(window.batches).decode(),
                "cache_hits": min(window.cache_hits, window.requests),
                "rejected": window.rejected,
                "largest": LARGEST,
                "longest": LONGEST_US,
            },
        )
