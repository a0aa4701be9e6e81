"""Workers of one's own on a running stack, and the faults that are thrown at them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import redis

from tests.chaos.conftest import LEASE
from tests.e2e.stack import ROOT, Stack, parent, send, state_of

CELERY = [sys.executable, "-m", "celery", "-A", "slipway.celery"]
LIGHT = ["--without-gossip", "--without-mingle", "--loglevel", "warning"]
ROLES = {
    "worker-1": ["worker", "--queues", "export,optimize,retrain", "--concurrency", "2", "--hostname", "w1@%h", *LIGHT],
    "worker-2": ["worker", "--queues", "export,optimize,retrain", "--concurrency", "2", "--hostname", "w2@%h", *LIGHT],
    "control-1": ["worker", "--queues", "rollout,monitor,tick", "--pool", "threads", "--concurrency", "4",
                  "--hostname", "c1@%h", *LIGHT],
    "control-2": ["worker", "--queues", "rollout,monitor,tick", "--pool", "threads", "--concurrency", "4",
                  "--hostname", "c2@%h", *LIGHT],
    "beat-1": ["beat", "--pidfile=", "--loglevel", "warning"],
    "beat-2": ["beat", "--pidfile=", "--loglevel", "warning"],
}  # fmt: skip
PREFORK = ("worker-1", "worker-2")


class Workers:
    """Two prefork workers, two controls and two beats; whoever ended is started again by `tend`."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.starts: Counter[str] = Counter()
        self.strays: set[int] = set()  # children of mains that were killed
        self.ending = False
        self._lock = threading.Lock()

    def tend(self) -> None:
        """Starts what does not run."""
        with self._lock:
            for name, line in ROLES.items():
                child = self.processes.get(name)
                if self.ending or (child is not None and child.poll() is None):
                    continue
                schedule = ["--schedule", str(self.stack.home / f"{name}-schedule")] if "beat" in name else []
                log = self.stack.home / "logs" / f"{name}.log"
                with log.open("ab") as stream:
                    self.processes[name] = subprocess.Popen(
                        [*CELERY, *line, *schedule], env={**self.stack.env, "CHAOS_ROLE": name}, cwd=ROOT,
                        stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
                    )  # fmt: skip
                self.starts[name] += 1

    def children(self, name: str) -> list[int]:
        """The pool processes of a prefork worker."""
        main = self.processes[name].pid
        return sorted(pid for pid in self.stack.everything() if parent(pid) == main)

    def sandboxed(self) -> list[int]:
        """The sandboxes' first processes: children of pool processes."""
        pool = {pid for name in PREFORK for pid in self.children(name)}
        return sorted(pid for pid in all_pids() if parent(pid) in pool)

    def stop(self) -> None:
        with self._lock:
            self.ending = True
        for pid in [*self.strays, *(p.pid for p in self.processes.values())]:
            send(pid, signal.SIGCONT)
        for child in self.processes.values():
            send(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + 8
        for child in self.processes.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


class Faults:
    """One fault at a time, chosen by a seeded generator; `counts` says how many of each happened."""

    def __init__(self, workers: Workers, seed: int) -> None:
        self.workers, self.stack = workers, workers.stack
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self._thaws: list[threading.Timer] = []

    @property
    def kills(self) -> int:
        return sum(count for name, count in self.counts.items() if name.startswith("kill"))

    def one(self) -> None:
        """A fault, more often a killed child than anything else."""
        name = self.random.choices(
            ["kill-child", "kill-main", "kill-control", "kill-sandbox", "freeze-child", "freeze-main", "flush",
             "redis"],
            [12, 5, 3, 2, 2, 1, 2, 1],
        )[0]  # fmt: skip
        getattr(self, "_" + name.replace("-", "_"))()

    def _kill_child(self) -> None:
        found = self.workers.children(self.random.choice(PREFORK))
        if found:
            send(self.random.choice(found))
            self.counts["kill-child"] += 1

    def _kill_main(self) -> None:
        name = self.random.choice(PREFORK)
        # Its children go on with what they hold, and end afterwards.
        self.workers.strays.update(self.workers.children(name))
        send(self.workers.processes[name].pid)
        self.counts["kill-main"] += 1

    def _kill_control(self) -> None:
        send(self.workers.processes[self.random.choice(["control-1", "control-2", "beat-1", "beat-2"])].pid)
        self.counts["kill-control"] += 1

    def _kill_sandbox(self) -> None:
        """As the kernel does when memory runs out."""
        found = self.workers.sandboxed()
        if found:
            send(self.random.choice(found))
            self.counts["kill-sandbox"] += 1

    def _freeze_child(self) -> None:
        found = self.workers.children(self.random.choice(PREFORK))
        if found:
            self._freeze(self.random.choice(found), "freeze-child")

    def _freeze_main(self) -> None:
        self._freeze(self.workers.processes[self.random.choice(PREFORK)].pid, "freeze-main")

    def _freeze(self, pid: int, name: str) -> None:
        """A zombie: it comes back long after its lease has run out."""
        if state_of(pid) in "ZXT":
            return
        send(pid, signal.SIGSTOP)
        timer = threading.Timer(LEASE * 2.5, send, (pid, signal.SIGCONT))
        timer.start()
        self._thaws.append(timer)
        self.counts[name] += 1

    def _flush(self) -> None:
        with redis.Redis.from_url(self.stack.env["REDIS_URL"], socket_timeout=5) as client:
            try:
                client.flushall()
                self.counts["flush"] += 1
            except redis.RedisError:
                return

    def _redis(self) -> None:
        if self.stack.pids().get("redis"):
            send(self.stack.pids()["redis"][0])
            self.counts["redis-kill"] += 1

    def restart_postgres(self) -> None:
        """A fast shutdown, as `pg_ctl restart` does; `up` starts it again."""
        os.kill(self.stack.main("postgres"), signal.SIGINT)
        self.counts["postgres-restart"] += 1

    def over(self) -> None:
        """Thaws what is frozen; no fault after this."""
        for timer in self._thaws:
            timer.join()
