"""What one process holds: the routing table, the compute pool, counters. Shared by app, agent, reporter."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from serving.compute import Compute, Cores
from serving.limits import Ledger
from serving.metrics import Snapshots, snapshot
from serving.options import Options
from serving.shadow import Mirror
from serving.table import Shared, Table
from serving.telemetry import Recorder
from serving.upstream import Upstream

# Bodies being read may hold this much in all, as a multiple of the largest single one.
BODY_BUDGET = 4
# Between two questions whether upstreams are ready.
LOOK_EVERY_S = 3.0


class Runtime:
    """State of a process. Everything but `table` (read and replaced whole) belongs to the loop's thread."""

    def __init__(self, options: Options, index: int, snapshots: Snapshots, cores: Cores | None = None) -> None:
        self.options = options
        self.index = index
        self.table = Table(0, {})
        self._former: list[Table] = []  # what calls in flight may still hold
        self._closing: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self.on_health: Callable[[], object] | None = (
            None  # what is ready has changed: by an upstream, or because the process listens now
        )
        self.loaded = False  # a first table was put in place
        self.listening = False  # whoever hears that a deployment is ready may connect at once
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
        self.over_quota = 0

    def swap(self, table: Table) -> Table:
        """Put a new table in place; the former one, which requests in flight may still hold."""
        former, self.table = self.table, table
        self.loaded = True
        alive = {d.id for d in table.deployments().values() if d.placement.mode == "shadow"}
        self.mirror.forget(alive)
        self._former = [held for held in (*self._former, former) if held.inflight]
        loop = asyncio.get_running_loop()
        for upstream in self.shared.forget(table):
            task = loop.create_task(_close(upstream, list(self._former)))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        if self.shared.upstreams() and (self._looking is None or self._looking.done()):
            self._looking = loop.create_task(self._look())
        return former

    async def _look(self) -> None:
        """Ask upstreams every few seconds whether they are ready, for as long as there are any."""
        while upstreams := self.shared.upstreams():
            before = [upstream.problem for upstream in upstreams]
            await asyncio.gather(*(upstream.look() for upstream in upstreams))
            if before != [upstream.problem for upstream in upstreams] and self.on_health is not None:
                self.on_health()
            await asyncio.sleep(LOOK_EVERY_S)

    def snapshot(self) -> dict[str, Any]:
        """This process's numbers for /metrics."""
        gauges: dict[str, float] = {
            "generation": self.table.generation,
            "inflight_requests": self.table.inflight,
            "models_loaded": sum(d.model is not None for d in self.table.deployments().values()),
            "upstreams_open": sum(upstream.breaker.open for upstream in self.shared.upstreams()),
            "upstreams_not_ready": sum(not upstream.ready for upstream in self.shared.upstreams()),
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
            "requests_over_quota": self.over_quota,
            **self.shared.counted(),
        }
        return snapshot(self.snapshots.base, self.recorder.totals(), counters, dict(self.responses), gauges, self.index)

    async def swap_from_thread(self, table: Table) -> Table:
        """As `swap`, for `asyncio.run_coroutine_threadsafe`."""
        return self.swap(table)

    def swap_blocking(self, loop: asyncio.AbstractEventLoop, table: Table) -> Table:
        """As `swap`, called from another thread; returns when it is done."""
        return asyncio.run_coroutine_threadsafe(self.swap_from_thread(table), loop).result()


async def _close(upstream: Upstream, tables: list[Table]) -> None:
    """Close an upstream when no call can want it any more."""
    while any(table.inflight for table in tables):
        await asyncio.sleep(0.2)
    await upstream.close()
