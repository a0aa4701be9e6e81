"""Counts of what was answered, in 5 s windows per deployment; touched by the event loop's thread alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from engine.formats.latency import bucket_of
from serving.table import Deployment

WINDOW_S = 5
MAX_WINDOWS = 4096
MAX_VALUES = 64
# Predicted classes of a larger batch are counted from its first rows only: counting must stay cheap.
MAX_ROWS = 4096


class Window:
    """What one deployment did between `start` and `end` (epoch seconds)."""

    __slots__ = ("deployment", "end", "errors", "latency", "outputs", "requests", "start", "total_us")

    def __init__(self, deployment: Deployment, start: int) -> None:
        self.deployment = deployment
        self.start = start
        self.end = start + WINDOW_S
        self.requests = 0
        self.errors = 0
        self.total_us = 0.0
        self.latency: dict[int, int] = {}
        self.outputs: dict[str, dict[str, int]] = {}

    def report(self) -> dict[str, Any]:
        """As the contract wants it."""
        return {
            "deployment": self.deployment.id,
            "start": self.start,
            "requests": self.requests,
            "errors": self.errors,
            "latency": {str(index): count for index, count in self.latency.items()},
            "outputs": self.outputs,
        }


class Recorder:
    """Bounded: beyond MAX_WINDOWS the oldest window is dropped and counted in `dropped`."""

    def __init__(self) -> None:
        self._current: dict[str, Window] = {}
        self._windows: list[Window] = []
        self._totals: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.dropped = 0

    def record(
        self, deployment: Deployment, now: float, micros: float, error: bool, label: np.ndarray | None = None
    ) -> None:
        """Count one answer. `now` in epoch seconds, `micros` from body to answer; `label` are its classes."""
        window = self._current.get(deployment.id)
        if window is None or now >= window.end:
            window = self._open(deployment, now)
        window.requests += 1
        window.total_us += micros
        bucket = bucket_of(micros)
        window.latency[bucket] = window.latency.get(bucket, 0) + 1
        if error:
            window.errors += 1
        elif label is not None and deployment.model is not None and deployment.model.label is not None:
            counts = window.outputs.setdefault(deployment.model.label, {})
            for value in label.reshape(-1)[:MAX_ROWS].tolist():
                key = value[:100] if isinstance(value, str) else str(value)
                if key not in counts and len(counts) >= MAX_VALUES:
                    key = "other"
                counts[key] = counts.get(key, 0) + 1

    def _open(self, deployment: Deployment, now: float) -> Window:
        window = Window(deployment, int(now) // WINDOW_S * WINDOW_S)
        self._current[deployment.id] = window
        self._windows.append(window)
        if len(self._windows) > MAX_WINDOWS:
            self._fold(self._windows.pop(0))
            self.dropped += 1
        return window

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._windows)

    def take(self) -> list[dict[str, Any]]:
        """Everything counted since the last take, as report windows."""
        taken, self._windows = self._windows, []
        self._current.clear()
        for window in taken:
            self._fold(window)
        return [window.report() for window in taken]

    def _fold(self, window: Window) -> None:
        add(self._totals, window)

    def totals(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """Counts since the start by (endpoint, version, deployment), windows not yet taken included."""
        result = {key: {**value, "latency": Counter(value["latency"])} for key, value in self._totals.items()}
        for window in self._windows:
            add(result, window)
        return result


def add(totals: dict[tuple[str, str, str], dict[str, Any]], window: Window) -> None:
    """Add a window to totals by (endpoint, version, deployment)."""
    deployment = window.deployment
    key = (deployment.endpoint, deployment.version, deployment.id)
    total = totals.setdefault(key, {"requests": 0, "errors": 0, "total_us": 0.0, "latency": Counter()})
    total["requests"] += window.requests
    total["errors"] += window.errors
    total["total_us"] += window.total_us
    total["latency"].update({str(index): count for index, count in window.latency.items()})
