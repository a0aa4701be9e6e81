"""Follows one child until it ends or passes a limit, and leaves nothing of it running."""

from __future__ import annotations

import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from engine.errors import EngineError
from engine.sandbox import processes
from engine.sandbox.cgroup import MemoryGroup
from engine.sandbox.limits import Limits

_TICK = 0.05  # seconds between looks at memory; about 0.2 ms of work each
_DISK_EVERY = 20  # ticks
_CHUNK = 1 << 16


class Lines:
    """Cuts a byte stream into text lines of bounded length and number."""

    def __init__(self, give: Callable[[str], None], limits: Limits) -> None:
        self._give, self._limits, self._left = give, limits, limits.log_lines
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._one(line)
        # A line without an end must not grow without one; 4 bytes is the longest character.
        most = self._limits.line_chars * 4
        if len(self._rest) > most:
            self._rest = self._rest[:most]

    def end(self) -> None:
        if self._rest:
            self._one(self._rest)
            self._rest = b""

    def _one(self, line: bytes) -> None:
        self._left -= 1
        if self._left < 0:
            return
        if self._left == 0:
            self._give("(more output was cut off)")
            return
        text = line.decode("utf-8", "replace").rstrip("\r").replace("\x00", "�")
        most = self._limits.line_chars
        self._give(text if len(text) <= most else text[:most] + "…")


class Watch:
    """One child under observation; `until_end` is called once."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        result_fd: int,
        limits: Limits,
        folders: list[Path],
        on_line: Callable[[str], None],
        stop: threading.Event | None,
        group: MemoryGroup | None,
    ) -> None:
        self.child, self.result_fd, self.limits, self.stop, self.group = child, result_fd, limits, stop, group
        self.folders, self.lines = folders, Lines(on_line, limits)
        self.peak_bytes, self.exit_code = 0, 0
        self.deadline = time.monotonic() + limits.seconds
        self.result = bytearray()

    def until_end(self) -> bytes:
        """The bytes of the child's answer. EngineError when a limit ended it."""
        assert self.child.stdout is not None
        if self.group is not None:
            self.group.take(self.child.pid)
        with selectors.DefaultSelector() as selector:
            for fd in (self.child.stdout.fileno(), self.result_fd):
                os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ)
            try:
                self._follow(selector)
            finally:
                self._finish(selector)
        self._check_killed()
        answer, _, peak = bytes(self.result).rpartition(b"\n")
        if peak.isdigit():
            # Looks are 50 ms apart; the kernel's own mark catches what was shorter.
            self.peak_bytes = max(self.peak_bytes, int(peak[:12]) * 1024)
        return answer

    def _follow(self, selector: selectors.BaseSelector) -> None:
        ticks, next_tick = 0, time.monotonic()
        while selector.get_map() and not self._ended():
            for key, _ in selector.select(_TICK):
                self._read(selector, key.fd)
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + _TICK
                self._check(ticks)
                ticks += 1
        while not self._ended():  # it closed its output and goes on
            self._check(ticks)
            ticks += 1
            time.sleep(_TICK)

    def _ended(self) -> bool:
        # WNOWAIT leaves it a zombie: its number cannot be reused before the final kill.
        ended = os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is not None

    def _read(self, selector: selectors.BaseSelector, fd: int) -> bool:
        """Takes what is there; False when there is nothing now or nothing more."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            selector.unregister(fd)
        elif fd == self.result_fd:
            self.result += data
            if len(self.result) > self.limits.result_mb * 1024 * 1024 + 1024:
                raise EngineError("The result is too large.", code="result")
        else:
            self.lines.feed(data)
        return bool(data)

    def _check(self, tick: int) -> None:
        if self.stop is not None and self.stop.is_set():
            raise EngineError("The work was stopped.", code="stopped")
        if time.monotonic() > self.deadline:
            raise EngineError(f"The work took longer than {self.limits.seconds:g} s.", code="timeout")
        self._check_killed()
        pids = processes.descendants(self.child.pid)
        if len(pids) > self.limits.processes + 2:
            raise EngineError(f"The work started more than {self.limits.processes} processes.", code="processes")
        resident = processes.resident_bytes(pids)
        self.peak_bytes = max(self.peak_bytes, resident)
        if resident > self.limits.memory_mb * 1024**2:
            raise self._too_much_memory()
        if tick % _DISK_EVERY == _DISK_EVERY - 1 and self._disk_bytes() > self.limits.disk_mb * 1024**2:
            raise EngineError(f"The work wrote more than {self.limits.disk_mb} MB.", code="disk")

    def _check_killed(self) -> None:
        if self.group is not None and self.group.killed():
            raise self._too_much_memory()

    def _too_much_memory(self) -> EngineError:
        return EngineError(f"The work needed more than {self.limits.memory_mb} MB of memory.", code="memory")

    def _disk_bytes(self) -> int:
        total, todo = 0, [str(folder) for folder in self.folders]
        while todo:
            try:
                with os.scandir(todo.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            todo.append(entry.path)
                        else:
                            total += entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue  # removed while we looked
        return total

    def _finish(self, selector: selectors.BaseSelector) -> None:
        """Ends whatever is left, reads what is in the pipes, reaps. Safe after any error."""
        processes.end_all(self.child.pid)
        _, status = os.waitpid(self.child.pid, 0)
        self.child.returncode = self.exit_code = os.waitstatus_to_exitcode(status)
        if self.exit_code < 0:
            self.exit_code = 128 - self.exit_code
        try:
            for key in list(selector.get_map().values()):
                while self._read(selector, key.fd):
                    pass
            self.lines.end()
        finally:
            os.close(self.result_fd)
            assert self.child.stdout is not None
            self.child.stdout.close()
