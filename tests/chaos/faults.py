"""Workers of one's own on a running stack, and the faults that are thrown at them."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg2
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


class Board:
    """The jobs' states, straight from PostgreSQL; it may be away for a moment."""

    def __init__(self, stack: Stack) -> None:
        self.url = stack.env["DATABASE_URL"]

    def states(self) -> Counter[str]:
        """{state: how many}; empty while the database is away."""
        rows = self._rows("SELECT state, count(*) FROM jobs_job GROUP BY state")
        return Counter({state: int(count) for state, count in rows})

    def live(self) -> int:
        """How many have not ended; very many while nobody can say."""
        states = self.states()
        return states["queued"] + states["running"] if states else 10**6

    def spared(self) -> set[int]:
        """Processes whose job has lost two workers in a row."""
        rows = self._rows("SELECT claimed_by FROM jobs_job WHERE state = 'running' AND failures >= 2")
        return {int(worker.rpartition(":")[2]) for (worker,) in rows}

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        try:
            connection = psycopg2.connect(self.url, connect_timeout=2)
        except psycopg2.Error:
            return []
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return list(cursor.fetchall())
        except psycopg2.Error:
            return []
        finally:
            connection.close()


# For thirty kills; the deck is shuffled by the seed.
DECK = {
    "kill-child": 17, "kill-main": 7, "kill-control": 4, "kill-sandbox": 3, "freeze-child": 3, "freeze-main": 1,
    "flush": 4, "kill-redis": 3, "restart-postgres": 1,
}  # fmt: skip
WORKER_KILLS = ("kill-child", "kill-main", "kill-control", "kill-sandbox")


class Faults:
    """A shuffled deck of faults; `counts` says how many of each were dealt.

    A worker whose job has already lost two in a row is passed over: after the fifth a job counts as poison.
    """

    def __init__(self, workers: Workers, board: Board, *, seed: int, kills: int) -> None:
        self.workers, self.board, self.stack = workers, board, workers.stack
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        scale = kills / sum(DECK[name] for name in WORKER_KILLS)
        self.deck = [name for name, count in DECK.items() for _ in range(max(1, math.ceil(count * scale)))]
        self.random.shuffle(self.deck)
        self.dealt, self.planned = 0, len(self.deck)
        self._thaws: list[threading.Timer] = []

    @property
    def kills(self) -> int:
        return sum(self.counts[name] for name in WORKER_KILLS)

    def one(self) -> None:
        """Deals the next fault; one that finds nobody to hit goes back into the deck."""
        name = self.deck.pop()
        if getattr(self, "_" + name.replace("-", "_"))():
            self.counts[name] += 1
            self.dealt += 1
        else:
            self.deck.insert(self.random.randrange(len(self.deck) + 1), name)

    def over(self) -> None:
        """Waits until whatever is frozen goes on; no fault after this."""
        for timer in self._thaws:
            timer.join()

    def _child(self) -> int | None:
        spared = self.board.spared()
        found = [pid for name in PREFORK for pid in self.workers.children(name) if pid not in spared]
        return self.random.choice(found) if found else None

    def _kill_child(self) -> bool:
        child = self._child()
        if child is not None:
            send(child)
        return child is not None

    def _kill_main(self) -> bool:
        spared = self.board.spared()
        found = [name for name in PREFORK if not spared & set(self.workers.children(name))]
        if not found:
            return False
        name = self.random.choice(found)
        # Its children go on with what they hold, and end afterwards.
        self.workers.strays.update(self.workers.children(name))
        send(self.workers.processes[name].pid)
        return True

    def _kill_control(self) -> bool:
        send(self.workers.processes[self.random.choice(["control-1", "control-2", "beat-1", "beat-2"])].pid)
        return True

    def _kill_sandbox(self) -> bool:
        """As the kernel does when memory runs out."""
        spared = self.board.spared()
        found = [pid for pid in self.workers.sandboxed() if parent(pid) not in spared]
        if found:
            send(self.random.choice(found))
        return bool(found)

    def _freeze_child(self) -> bool:
        child = self._child()
        return child is not None and self._freeze(child)

    def _freeze_main(self) -> bool:
        return self._freeze(self.workers.processes[self.random.choice(PREFORK)].pid)

    def _freeze(self, pid: int) -> bool:
        """A zombie: it comes back long after its lease has run out."""
        if state_of(pid) in "ZXT":
            return False
        send(pid, signal.SIGSTOP)
        timer = threading.Timer(LEASE * 2.5, send, (pid, signal.SIGCONT))
        timer.start()
        self._thaws.append(timer)
        return True

    def _flush(self) -> bool:
        with redis.Redis.from_url(self.stack.env["REDIS_URL"], socket_timeout=5) as client:
            try:
                return bool(client.flushall())
            except redis.RedisError:
                return False

    def _kill_redis(self) -> bool:
        """`up` starts it again, with nothing in it."""
        found = self.stack.pids().get("redis", [])
        if found:
            send(found[0])
        return bool(found)

    def _restart_postgres(self) -> bool:
        """A fast shutdown, as `pg_ctl restart` does; `up` starts it again."""
        os.kill(self.stack.main("postgres"), signal.SIGINT)
        return True
