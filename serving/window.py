"""One deployment's numbers over five seconds. Samples are kept as they come and added up many at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from engine.formats.latency import buckets_of
from serving.table import Deployment

WINDOW_S = 5
MAX_VALUES = 64
# Predicted classes of a larger batch are counted from its first rows only: counting must stay cheap.
MAX_ROWS = 4096
# So many samples are added up at once (about 0.2 ms); a label of more rows is not kept waiting.
_FOLD = 1024
_SMALL = 64
# What totals add up, beside the latency sketch and the batches.
SUMS = ("requests", "errors", "total_us", "input_us", "queue_us", "compute_us", "error_us", "cache_hits", "rejected")


class Window:
    """What one deployment did between `start` and `end` (epoch seconds); times in microseconds."""

    def __init__(self, deployment: Deployment, start: int) -> None:
        self.deployment = deployment
        self.start = start
        self.end = start + WINDOW_S
        self.requests = 0
        self.errors = 0
        self.total_us = 0.0  # from the whole request to the answer
        self.input_us = 0.0  # reading the request
        self.queue_us = 0.0  # waiting for a thread
        self.compute_us = 0.0  # in the model
        self.error_us = 0.0  # of the answers that were errors
        self.last = 0.0  # epoch seconds of the last answer
        self.cache_hits = 0
        self.rejected = 0  # refused by a limit
        self.batches: dict[int, int] = {}  # runs by how many requests shared them
        self.latency: dict[int, int] = {}
        self.outputs: dict[str, dict[str, int]] = {}
        self._times: list[tuple[float, float, float, float]] = []
        self._labels: list[np.ndarray] = []

    def add(self, total_s: float, input_s: float, queue_s: float, compute_s: float, batch: int) -> None:
        """Count one answer, in a run that `batch` requests shared (0: another request counts the run)."""
        times = self._times
        times.append((total_s, input_s, queue_s, compute_s))
        if batch:
            self.batches[batch] = self.batches.get(batch, 0) + 1
        if len(times) >= _FOLD:
            self.fold()

    def ended(self, now: float, total_s: float, failed: bool, label: np.ndarray | None) -> None:
        """Count how an answer ended, at `now` in epoch seconds; `label` has its predicted classes."""
        self.last = now
        if failed:
            self.errors += 1
            self.error_us += total_s * 1e6
        elif label is not None:
            self.classes(label)

    def classes(self, label: np.ndarray) -> None:
        """Count predicted classes."""
        self._labels.append(label)
        if label.size > _SMALL or len(self._labels) >= _FOLD:
            self._fold_labels()

    def fold(self) -> None:
        """Add up what is kept."""
        if self._labels:
            self._fold_labels()
        if not self._times:
            return
        times = np.array(self._times) * 1e6
        self.requests += len(self._times)
        self._times = []
        total, read, queue, compute = (float(value) for value in times.sum(axis=0))
        self.total_us += total
        self.input_us += read
        self.queue_us += queue
        self.compute_us += compute
        for bucket, count in buckets_of(times[:, 0]).items():
            self.latency[bucket] = self.latency.get(bucket, 0) + count

    def _fold_labels(self) -> None:
        labels, self._labels = self._labels, []
        model = self.deployment.model
        if model is None or model.label is None:
            return
        counts = self.outputs.setdefault(model.label, {})
        found = Counter(value for label in labels for value in label.reshape(-1)[:MAX_ROWS].tolist())
        for value, count in found.items():
            key = value[:100] if isinstance(value, str) else str(value)
            if key not in counts and len(counts) >= MAX_VALUES:
                key = "other"
            counts[key] = counts.get(key, 0) + count

    def report(self) -> dict[str, Any]:
        """As the contract with the control plane wants it."""
        self.fold()
        return {
            "deployment": self.deployment.id,
            "start": self.start,
            "requests": self.requests,
            "errors": self.errors,
            "latency": {str(index): count for index, count in self.latency.items()},
            "outputs": self.outputs,
            "queue_us": round(self.queue_us),
            "compute_us": round(self.compute_us),
            "batches": {str(size): count for size, count in self.batches.items()},
            "cache_hits": self.cache_hits,
            "rejected": self.rejected,
        }
