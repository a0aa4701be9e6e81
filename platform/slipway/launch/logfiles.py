"""One log file for each process, cut by size; chosen ones are also shown in the terminal.

Children write to their files themselves, so that nothing of theirs waits for us or dies with us.
"""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from honcho.colour import get_colours
from honcho.printer import Message, Printer

LARGEST = 10 * 1024 * 1024
KEPT = 2
SIZE_EVERY = 5.0


class LogFiles:
    """The log folder of one home."""

    def __init__(self, folder: Path, *, verbose: bool, show: Callable[[str], None]) -> None:
        self.folder = folder
        self.verbose = verbose
        self._show = show
        self._followed: dict[str, int] = {}
        self._names: set[str] = set()
        self._sized = 0.0
        self._colours: dict[str, str] = {}
        self._next_colour = get_colours()
        self._printer = Printer(width=8)
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def open(self, name: str) -> Path:
        """The file of a lasting process; it grows over restarts."""
        self._names.add(name)
        self.path(name).touch(mode=0o600)
        if self.verbose and name not in self._followed:
            self._followed[name] = self.path(name).stat().st_size
        return self.path(name)

    def fresh(self, name: str) -> Path:
        """The file of a command that runs once, emptied."""
        self.path(name).unlink(missing_ok=True)
        return self.open(name)

    def follow(self, name: str) -> None:
        """Show the lines of `name` in the terminal as they come."""
        self._followed.setdefault(name, 0)

    def unfollow(self, name: str) -> None:
        """Show what is left and no more."""
        self._show_new(name)
        self._followed.pop(name, None)

    def turn(self) -> None:
        """Show new lines; now and then cut files that have grown too large."""
        for name in list(self._followed):
            self._show_new(name)
        if time.monotonic() - self._sized >= SIZE_EVERY:
            self._sized = time.monotonic()
            for name in self._names:
                self._cut(self.path(name))

    def _show_new(self, name: str) -> None:
        position = self._followed.get(name)
        if position is None:
            return
        size = self.path(name).stat().st_size
        if size == position:
            return
        with self.path(name).open("rb") as stream:
            stream.seek(position if position < size else 0)
            data = stream.read(1024 * 1024)
        whole = data.rfind(b"\n") + 1
        self._followed[name] = stream_end(position, size) + whole
        for line in data[:whole].decode("utf-8", "replace").splitlines():
            if self.verbose:
                self._print(name, line)
            else:
                self._show(f"  {line}")

    def _print(self, name: str, line: str) -> None:
        colour = self._colours.setdefault(name, self._colours.get(name) or next(self._next_colour))
        now = datetime.datetime.now()  # local time: it is for the person at the terminal
        self._printer.write(Message("line", line, now, name, colour))

    def _cut(self, path: Path) -> None:
        """Copy and truncate: the writer holds the file open in append mode and goes on at the start."""
        if not path.exists() or path.stat().st_size < LARGEST:
            return
        for number in range(KEPT, 1, -1):
            older = path.with_suffix(f".log.{number - 1}")
            if older.exists():
                older.replace(path.with_suffix(f".log.{number}"))
        shutil.copyfile(path, path.with_suffix(".log.1"))
        with path.open("r+b") as stream:
            stream.truncate(0)


def stream_end(position: int, size: int) -> int:
    """Where reading went on: at `position`, or at the start of a file that was cut meanwhile."""
    return position if position < size else 0
