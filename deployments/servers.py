"""What the inference server processes say: of themselves, and of the deployments they have."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from deployments.models import Deployment, Server
from deployments.selectors import ALIVE, generation, seconds_behind
from slipway.accounts import policy

REMEMBERED = dt.timedelta(hours=1)


def servers_recent() -> QuerySet[Server]:
    """Processes that reported within the last hour."""
    return Server.objects.filter(seen_at__gte=timezone.now() - REMEMBERED)


def servers_described(user: Any, rows: Iterable[Server]) -> list[dict[str, Any]]:
    """Each process with the deployments on it that the user sees; three queries at most, whatever there is.

    Processes are shared by all projects, so everybody who is signed in sees that they are there.
    """
    found = list(rows)
    wanted, now = generation(), timezone.now()
    keys = {int(key) for row in found for key in row.deployments if key.isascii() and key.isdigit()}
    visible = policy.visible(user, Deployment.objects.filter(pk__in=keys))
    lacking = seconds_behind(found, wanted)
    known = {str(row.pk): row for row in visible.select_related("endpoint", "artifact__version")}
    return [
        {
            "id": row.pk,
            "instance": row.instance,
            "process": row.process,
            "pid": row.pid,
            "version": row.version,
            "generation": row.generation,
            "desired_generation": wanted,
            "current": row.generation >= wanted,
            "behind_s": lacking.get(row.pk),
            "alive": row.seen_at >= now - ALIVE,
            "memory_bytes": row.memory_bytes,
            "seen_at": row.seen_at,
            "started_at": row.started_at,
            "deployments": [_loaded(known[key], told) for key, told in row.deployments.items() if key in known],
        }
        for row in found
    ]


def _loaded(row: Deployment, told: dict[str, Any]) -> dict[str, Any]:
    return {
        "deployment": row.pk,
        "endpoint": row.endpoint.name,
        "version": row.artifact.version.number,
        "state": told["state"],
        "reason": told.get("reason", ""),
        "sha256": told.get("sha256", ""),
        "provider": told.get("provider"),
        "memory_bytes": told.get("memory_bytes", 0),
        "cost_us": told.get("cost_us"),
        "batching": told.get("batching"),
    }


def load_of(deployments: Iterable[Deployment], servers: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """{deployment id: what the living processes measured of it}, from `selectors.servers`; no query.

    processes: how many living ones have it; ready: how many of them can answer. memory_bytes: of all of them
    together. cost_ms: one call as measured at load, the slowest process's, or None. batch_max, batch_why: how
    many requests at most share a run and the reason in a sentence, of the process with the largest, or None
    and "". providers: the hardware that answers, by name.
    """
    told: dict[int, list[dict[str, Any]]] = {row.pk: [] for row in deployments}
    for one in servers:
        if one["alive"]:
            for row, seen in one["loaded"]:
                if row.pk in told:
                    told[row.pk].append(seen)
    return {pk: _load(rows) for pk, rows in told.items()}


def _load(rows: list[dict[str, Any]]) -> dict[str, Any]:
    costs = [row["cost_us"] for row in rows if row.get("cost_us") is not None]
    batching = max((row["batching"] for row in rows if row.get("batching")), key=lambda one: one["max"], default=None)
    return {
        "processes": len(rows),
        "ready": sum(row["state"] == "ready" for row in rows),
        "memory_bytes": sum(row.get("memory_bytes", 0) for row in rows),
        "cost_ms": max(costs) / 1000 if costs else None,
        "batch_max": batching["max"] if batching else None,
        "batch_why": batching.get("why", "") if batching else "",
        "providers": sorted({row["provider"] for row in rows if row.get("provider")}),
    }
