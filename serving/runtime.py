"""What one process holds: the routing table, the compute pool, counters. Shared by app, agent, reporter."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from typing import Any

from serving.compute import Compute, Cores
from serving.limits import Ledger
from serving.metrics import Snapshots, snapshot
from serving.options import Options
from serving.shadow import Mirror
from serving.table import Shared, Table
from serving.telemetry import Recorder

# Bodies being read may hold this much in all, as a multiple of the largest single one.
BODY_BUDGET = 4


class Runtime:
    """State of a process. Everything but `table` (read and replaced whole) belongs to the loop's thread."""

    def __init__(self, options: Options, index: int, snapshots: Snapshots, cores: Cores | None = None) -> None:
        self.options = options
        self.index = index
        self.table = Table(0, {})
        self._closing: set[asyncio.Task[None]] = set()
        self.loaded = False  # a first table was put in place
        self.draining = False
        self.recorder = Recorder()
        self.mirror = Mirror(self.recorder)
        self.responses: Counter[tuple[str, int]] = Counter()
        self.snapshots = snapshots
        self.compute = Compute(cores or Cores(len(os.sched_getaffinity(0)), index + 1), index)
        self.shared = Shared(Ledger(snapshots.folder / "quotas"))
        self.body_budget = options.max_body * BODY_BUDGET
        self.body_bytes = 0
        self.started = time.time()
        # Epoch seconds of the last word from the control plane; None when there is none to hear from.
        self.last_contact: float | None = None
        self.reports_dropped = 0
        self.reports_failed = 0
        self.load_failures = 0

    def swap(self, table: Table) -> Table:
        """Put a new table in place; the former one, which requests in flight may still hold."""
        former, self.table = self.table, table
        self.loaded = True
        alive = {d.id for d in table.deployments().values() if d.placement.mode == "shadow"}
        self.mirror.forget(alive)
        used = {d.placement.upstream for d in table.deployments().values() if d.placement.upstream is not None}
        for upstream in self.shared.forget(used):
            task = asyncio.get_running_loop().create_task(upstream.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return former

    def snapshot(self) -> dict[str, Any]:
        """This process's numbers for /metrics."""
        gauges: dict[str, float] = {
            "generation": self.table.generation,
            "inflight_requests": self.table.inflight,
            "models_loaded": sum(d.model is not None for d in self.table.deployments().values()),
            "upstreams_open": sum(
                d.upstream is not None and d.upstream.breaker.open for d in self.table.deployments().values()
            ),
            "uptime_seconds": round(time.time() - self.started, 1),
        }
        if self.options.control_url:
            since = self.last_contact if self.last_contact is not None else self.started
            gauges["control_plane_staleness_seconds"] = round(max(0.0, time.time() - since), 1)
        counters: dict[str, float] = {
            "telemetry_windows_dropped": self.recorder.dropped,
            "telemetry_reports_dropped": self.reports_dropped,
            "telemetry_reports_failed": self.reports_failed,
            "shadow_requests_dropped": self.mirror.dropped,
            "model_load_failures": self.load_failures,
            "cache_hits": sum(cache.hits for cache in self.shared.cached().values()),
            "cache_misses": sum(cache.misses for cache in self.shared.cached().values()),
        }
        return snapshot(self.snapshots.base, self.recorder.totals(), counters, dict(self.responses), gauges, self.index)

    async def swap_from_thread(self, table: Table) -> Table:
        """As `swap`, for `asyncio.run_coroutine_threadsafe`."""
        return self.swap(table)

    def swap_blocking(self, loop: asyncio.AbstractEventLoop, table: Table) -> Table:
        """As `swap`, called from another thread; returns when it is done."""
        return asyncio.run_coroutine_threadsafe(self.swap_from_thread(table), loop).result()
