"""The kernel's own bound on the memory of a child and of all it starts, where control groups may be made.

Watching looks 20 times a second; what grows faster is ended by the kernel. Root can make groups (version 1), and so can
whoever was delegated a part of the tree (version 2); elsewhere watching is what there is.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_LIMITS = {1: "memory.limit_in_bytes", 2: "memory.max"}
_EVENTS = {1: "memory.oom_control", 2: "memory.events"}
_numbers = itertools.count()


class MemoryGroup:
    """A group of processes that together may hold so many bytes."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder, self.version = folder, version

    @classmethod
    def make(cls, limit_bytes: int) -> MemoryGroup | None:
        """None where this process may make none."""
        found = _parent()
        if found is None:
            return None
        parent, version = found
        _sweep(parent)
        folder = parent / f"slipway-{os.getpid()}-{next(_numbers)}"
        try:
            folder.mkdir()
            group = cls(folder, version)
            (folder / _LIMITS[version]).write_text(str(limit_bytes))
        except OSError:
            if folder.is_dir():
                folder.rmdir()
            return None
        return group

    def take(self, pid: int) -> bool:
        """Puts a process in, and with it all that it starts from now on."""
        try:
            (self.folder / "cgroup.procs").write_text(str(pid))
        except OSError:  # it has ended already, or a rule of the machine forbids it: watching goes on
            return False
        return True

    def killed(self) -> bool:
        """Whether the kernel ended a process of it for its memory."""
        lines = (self.folder / _EVENTS[self.version]).read_text().splitlines()
        return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in lines)

    def remove(self) -> None:
        """Once its processes have ended; the kernel takes a moment to let go of the last."""
        for _ in range(20):
            try:
                self.folder.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.01)


def _parent() -> tuple[Path, int] | None:
    """Where groups with a bound on memory can be made, and the version of that tree."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return _usable(_ROOT / "memory" / path.lstrip("/"), 1)
        if not controllers and (_ROOT / "cgroup.controllers").exists():
            # Version 2 bounds no group beside whose own processes others are: ours is made next to the own one.
            folder = (_ROOT / path.lstrip("/")).parent
            passed_on = folder / "cgroup.subtree_control"
            if passed_on.exists() and "memory" in passed_on.read_text().split():
                return _usable(folder, 2)
    return None


def _usable(folder: Path, version: int) -> tuple[Path, int] | None:
    return (folder, version) if folder.is_dir() and os.access(folder, os.W_OK) else None


def _sweep(parent: Path) -> None:
    """Groups whose makers were killed."""
    for folder in parent.glob("slipway-*-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            try:
                folder.rmdir()
            except OSError:  # something still runs in it, or another did this first
                continue
