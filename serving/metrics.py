"""Prometheus text over all processes: each keeps a snapshot file, whoever is asked adds them up.

A child that is restarted starts from its predecessor's snapshot, so that counters never go back; what the
killed one counted since its last snapshot (a second at most) is lost.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from engine.formats.latency import GAMMA
from serving.window import SUMS

# Upper bounds in microseconds.
_BOUNDS = (100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1e6, 5e6, 3e7)
_LABELS = ["model", "version", "deployment"]
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Snapshots:
    """Snapshot files of this server's processes in one folder (removed with the server)."""

    def __init__(self, folder: Path, index: int) -> None:
        self.folder = folder
        self.path = folder / f"metrics-{index}.json"
        self.base = self._read(self.path)

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return data

    def write(self, snapshot: dict[str, Any]) -> None:
        """Replace this process's file. Raises OSError (a full disk): the caller goes on without."""
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(snapshot), encoding="utf-8")
        temporary.replace(self.path)

    def others(self) -> list[dict[str, Any]]:
        """Snapshots of the other processes."""
        paths = sorted(self.folder.glob("metrics-*.json"))
        return [data for path in paths if path != self.path and (data := self._read(path))]


def snapshot(
    base: dict[str, Any],
    totals: dict[tuple[str, str, str], dict[str, Any]],
    counters: dict[str, float],
    responses: dict[tuple[str, int], int],
    gauges: dict[str, float],
    index: int,
) -> dict[str, Any]:
    """One process's numbers, its predecessor's (`base`) added, ready for JSON."""
    deployments = {tuple(key): dict(value) for key, value in base.get("deployments", [])}
    for key, total in totals.items():
        _add_deployment(deployments, key, total)
    summed = Counter(base.get("counters", {}))
    summed.update(counters)
    answered = Counter({tuple(key): count for key, count in base.get("responses", [])})
    answered.update(responses)
    return {
        "process": index,
        "deployments": [[list(key), value] for key, value in deployments.items()],
        "counters": dict(summed),
        "responses": [[list(key), count] for key, count in answered.items()],
        "gauges": gauges,
    }


def _add_deployment(into: dict[Any, dict[str, Any]], key: tuple[str, ...], total: dict[str, Any]) -> None:
    held = into.get(key)
    if held is None:
        into[key] = {**total, **{name: dict(total[name]) for name in ("latency", "batches")}}
        return
    into[key] = {
        **{name: held[name] + total[name] for name in SUMS},
        "last": max(held["last"], total["last"]),
        **{name: dict(Counter(held[name]) + Counter(total[name])) for name in ("latency", "batches")},
    }


class _Collector:
    def __init__(self, snapshots: list[dict[str, Any]]) -> None:
        self.snapshots = snapshots

    def collect(self) -> Iterator[Metric]:
        deployments: dict[Any, dict[str, Any]] = {}
        counters: Counter[str] = Counter()
        responses: Counter[tuple[str, int]] = Counter()
        for one in self.snapshots:
            for key, value in one.get("deployments", []):
                _add_deployment(deployments, tuple(key), value)
            counters.update(one.get("counters", {}))
            responses.update({tuple(key): count for key, count in one.get("responses", [])})
        yield from _deployment_metrics(deployments)
        answered = CounterMetricFamily(
            "slipway_responses", "Answers by model and HTTP status", labels=["model", "status"]
        )
        for (model, status), count in sorted(responses.items()):
            answered.add_metric([model, str(status)], count)
        yield answered
        for name, value in sorted(counters.items()):
            yield CounterMetricFamily(f"slipway_{name}", name.replace("_", " "), value=value)
        names = sorted({name for one in self.snapshots for name in one.get("gauges", {})})
        for name in names:
            gauge = GaugeMetricFamily(f"slipway_{name}", name.replace("_", " "), labels=["process"])
            for one in self.snapshots:
                if name in one.get("gauges", {}):
                    gauge.add_metric([str(one["process"])], one["gauges"][name])
            yield gauge


def _deployment_metrics(deployments: dict[Any, dict[str, Any]]) -> Iterator[Metric]:
    requests = CounterMetricFamily("slipway_inferences", "Inference requests answered", labels=_LABELS)
    errors = CounterMetricFamily("slipway_inference_errors", "Inferences that failed", labels=_LABELS)
    latency = HistogramMetricFamily(
        "slipway_inference_seconds", "From the whole body read to the answer", labels=_LABELS
    )
    rejected = CounterMetricFamily("slipway_inferences_rejected", "Inferences refused by a limit", labels=_LABELS)
    cached = CounterMetricFamily("slipway_inferences_cached", "Inferences answered from memory", labels=_LABELS)
    for key, total in sorted(deployments.items()):
        requests.add_metric(list(key), total["requests"])
        errors.add_metric(list(key), total["errors"])
        rejected.add_metric(list(key), total["rejected"])
        cached.add_metric(list(key), total["cache_hits"])
        edges = [(GAMMA ** (int(index) + 1), count) for index, count in total["latency"].items()]
        buckets = [
            (f"{bound / 1e6:g}", float(sum(count for edge, count in edges if edge <= bound))) for bound in _BOUNDS
        ]
        buckets.append(("+Inf", float(sum(count for _, count in edges))))
        latency.add_metric(list(key), buckets=buckets, sum_value=total["total_us"] / 1e6)
    yield from (requests, errors, rejected, cached, latency)


def render(snapshots: list[dict[str, Any]]) -> bytes:
    """Prometheus text of the sum of all snapshots; gauges stay one per process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshots))  # type: ignore[arg-type]
    return generate_latest(registry)
