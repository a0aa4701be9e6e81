"""Counts of what was answered, in windows per deployment; touched by the event loop's thread alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from serving.call import Call
from serving.table import Deployment
from serving.window import SUMS, WINDOW_S, Window

MAX_WINDOWS = 4096


class Recorder:
    """Bounded: beyond MAX_WINDOWS the oldest window is dropped and counted in `dropped`."""

    def __init__(self) -> None:
        self._current: dict[str, Window] = {}
        self._windows: list[Window] = []
        self._totals: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.dropped = 0

    def record(self, deployment: Deployment, now: float, seconds: float, call: Call) -> None:
        """Count one answer. `now` in epoch seconds, `seconds` from the whole request to the answer."""
        window = self._window(deployment, now)
        cached = call.cached
        window.add(seconds, call.input_s, call.queue_s, call.compute_s, 0 if cached else call.batch)
        if cached:
            window.cache_hits += 1
        window.ended(now, seconds, call.error is not None, call.label)

    def copied(
        self, deployment: Deployment, now: float, seconds: float, failed: bool, label: np.ndarray | None
    ) -> None:
        """Count a copy of a request that a shadow ran."""
        window = self._window(deployment, now)
        window.add(seconds, 0.0, 0.0, seconds, 1)
        window.ended(now, seconds, failed, label)

    def reject(self, deployment: Deployment, now: float) -> None:
        """Count a request refused by a limit: it is no error of the deployment."""
        window = self._window(deployment, now)
        window.rejected += 1

    def _window(self, deployment: Deployment, now: float) -> Window:
        window = self._current.get(deployment.id)
        if window is not None and now < window.end:
            return window
        window = Window(deployment, int(now) // WINDOW_S * WINDOW_S)
        self._current[deployment.id] = window
        self._windows.append(window)
        if len(self._windows) > MAX_WINDOWS:
            add(self._totals, self._windows.pop(0))
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
            add(self._totals, window)
        return [window.report() for window in taken]

    def totals(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """Counts since the start by (endpoint, version, deployment), windows not yet taken included."""
        result = {
            key: {**value, "latency": Counter(value["latency"]), "batches": Counter(value["batches"])}
            for key, value in self._totals.items()
        }
        for window in self._windows:
            add(result, window)
        return result


def add(totals: dict[tuple[str, str, str], dict[str, Any]], window: Window) -> None:
    """Add a window to totals by (endpoint, version, deployment)."""
    window.fold()
    deployment = window.deployment
    key = (deployment.endpoint, deployment.version, deployment.id)
    total = totals.setdefault(key, dict.fromkeys(SUMS, 0) | {"latency": Counter(), "batches": Counter()})
    for name in SUMS:
        total[name] += getattr(window, name)
    total["last"] = max(total.get("last", 0.0), window.last)
    total["latency"].update({str(index): count for index, count in window.latency.items()})
    total["batches"].update({str(size): count for size, count in window.batches.items()})
