"""Keeps the processes of one home running, and ends them all when asked.

honcho's manager stops everything when one process ends; here a process that was killed comes back,
and only one that cannot run ends the whole. One thread: `until` and `run` turn the same wheel as
`forever`, so that everything is watched from the first second on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from slipway.launch import processes
from slipway.launch.errors import LaunchError
from slipway.launch.logfiles import LogFiles

RESTARTS = 5  # this many unexpected ends …
WINDOW = 30.0  # … within this many seconds, and the process is given up
PAUSES = (0.0, 0.5, 1.0, 2.0)
SETTLED = 2.0  # a process without a check counts as ready when it has run this long
CHECK_EVERY = 0.15


class StopRequested(Exception):
    """Ctrl-C, TERM or HUP."""


@dataclass
class Child:
    """One supervised process. `start` spawns it; `prepare` runs before every start."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    prepare: Callable[[], None] | None = None
    is_ready: Callable[[], bool] | None = None
    stop_signal: int = signal.SIGTERM
    group: bool = True  # signal the whole group, or only the process itself
    phase: int = 0  # low phases stop first
    limit: float = 4.0  # seconds between the stop signal and SIGKILL

    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    started: float = 0.0
    due: float | None = None
    ends: deque[float] = field(default_factory=deque)

    def send(self, sig: int) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        if self.group:
            processes.signal_group(self.process.pid, sig)
        else:
            self.process.send_signal(sig)


class Supervisor:
    """Owns the children, their logs and the signals. Use it in the main thread only."""

    def __init__(self, *, logs: LogFiles, key: str, say: Callable[[str], None]) -> None:
        self.children: dict[str, Child] = {}
        self.logs = logs
        self.key = key
        self.say = say
        self._stop_signals = 0
        self._checked = 0.0
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)

    def catch_signals(self) -> None:
        """Turn INT, TERM and HUP into an orderly stop, and let CHLD wake the loop."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM):
            # Also where it is ignored: a shell does that to INT for whatever it starts with `&`.
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup asked for that
            signal.signal(signal.SIGHUP, self._on_signal)

    def environment(self, env: dict[str, str], name: str) -> dict[str, str]:
        """`env` with the mark by which everything that `name` starts can be found again."""
        return {**env, processes.MARKER: f"{self.key}:{name};"}

    def add(self, child: Child) -> None:
        """Start `child` and watch it from now on."""
        self.children[child.name] = child
        self._start(child)

    def until(self, done: Callable[[], bool], *, limit: float, late: str) -> None:
        """Turn the wheel until `done()`; after `limit` seconds give up with the sentence `late`."""
        deadline = time.monotonic() + limit
        while not done():
            if time.monotonic() > deadline:
                raise LaunchError(late)
            self.tick(0.05)

    def until_ready(self, *names: str, limit: float) -> None:
        """Wait for the named children's readiness checks."""
        for name in names:
            child = self.children[name]
            self.until(
                lambda child=child: child.ready,  # type: ignore[misc]
                limit=limit,
                late=f"{name} did not get ready within {limit:.0f} seconds. {self._log_words(name)}",
            )

    def run(
        self,
        name: str,
        command: list[str],
        *,
        env: dict[str, str],
        cwd: Path,
        limit: float,
        echo: bool = False,
    ) -> None:
        """Run a command to its end while everything else stays watched; its failure is a LaunchError."""
        log = self.logs.fresh(name)
        process = processes.spawn(command, log=log, env=self.environment(env, name), cwd=cwd)
        if echo:
            self.logs.follow(name)
        try:
            self.until(
                lambda: process.poll() is not None,
                limit=limit,
                late=f"{name} did not finish within {limit:.0f} seconds. {self._log_words(name)}",
            )
        finally:
            if process.poll() is None:
                processes.signal_group(process.pid, signal.SIGKILL)
                process.wait()
            self.logs.unfollow(name)
        if process.returncode != 0:
            raise LaunchError(f"{name} failed ({describe(process.returncode)}). {self._log_words(name)}")

    def forever(self) -> None:
        """Turn the wheel until a signal or a process that cannot run ends it."""
        while True:
            self.tick(1.0)

    def tick(self, longest: float) -> None:
        """Notice what ended, start what is due, check what is not ready yet, then sleep a little."""
        if self._stop_signals:
            raise StopRequested
        now = time.monotonic()
        for child in self.children.values():
            if child.process is not None and child.process.poll() is not None:
                self._ended(child, now)
            if child.due is not None and now >= child.due:
                self._start(child)
        if now - self._checked >= CHECK_EVERY:
            self._checked = now
            for child in self.children.values():
                self._check(child)
        self.logs.turn()
        soonest = min((c.due - now for c in self.children.values() if c.due is not None), default=longest)
        self._sleep(max(0.0, min(longest, soonest)))

    def stop(self) -> None:
        """End all children, phase by phase; whatever is left of them is killed."""
        for phase in sorted({child.phase for child in self.children.values()}):
            members = [child for child in self.children.values() if child.phase == phase]
            for child in members:
                child.due = None
                child.send(child.stop_signal)
            started, signals = time.monotonic(), self._stop_signals
            while running := [c for c in members if c.process is not None and c.process.poll() is None]:
                for child in running:
                    if time.monotonic() - started > child.limit or self._stop_signals > signals:
                        child.send(signal.SIGKILL)
                self._sleep(0.05)
            for child in members:
                self._end_rest(child)
        self.children.clear()
        processes.end_all(lambda: processes.marked(f"{self.key}:"), limit=2.0)

    def _start(self, child: Child) -> None:
        child.due = None
        if child.prepare is not None:
            child.prepare()
        child.process = child.start()
        child.started = time.monotonic()

    def _ended(self, child: Child, now: float) -> None:
        assert child.process is not None
        how = describe(child.process.returncode)
        self._end_rest(child)
        child.process = None
        if not child.ready:
            raise LaunchError(f"{child.name} ended before it was ready ({how}). {self._log_words(child.name)}")
        child.ends.append(now)
        while child.ends[0] < now - WINDOW:
            child.ends.popleft()
        if len(child.ends) >= RESTARTS:
            raise LaunchError(
                f"{child.name} ended {RESTARTS} times within {WINDOW:.0f} seconds, the last time "
                f"{how}. {self._log_words(child.name)}"
            )
        child.due = now + PAUSES[min(len(child.ends), len(PAUSES)) - 1]
        self.say(f"{child.name} ended ({how}); starting it again.")

    def _end_rest(self, child: Child) -> None:
        """Kill what an ended process left behind: it may hold a port or go on with a job."""
        processes.end_all(lambda: processes.marked(f"{self.key}:{child.name};"), limit=2.0)

    def _check(self, child: Child) -> None:
        if child.ready or child.process is None:
            return
        if child.is_ready is not None:
            child.ready = child.is_ready()
        else:
            child.ready = time.monotonic() - child.started >= SETTLED

    def _sleep(self, seconds: float) -> None:
        if select.select([self._wake_read], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_signals += 1

    def _log_words(self, name: str) -> str:
        log = self.logs.path(name)
        last = processes.tail(log)
        return f"Its log ({log}) ends:\n{last}" if last else f"It wrote nothing to its log ({log})."


def describe(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
