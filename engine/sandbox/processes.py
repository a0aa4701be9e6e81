"""All processes below one, by /proc: their memory, and ending them without leaving stragglers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def descendants(pid: int) -> list[int]:
    """`pid` and everything below it. Orphans are there too: the launcher adopts them."""
    found, todo = [], [pid]
    while todo:
        each = todo.pop()
        found.append(each)
        try:
            for thread in Path(f"/proc/{each}/task").iterdir():
                todo += [int(child) for child in (thread / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
            continue  # it ended while we looked
    return found


def resident_bytes(pids: list[int]) -> int:
    """Resident memory of these processes together; pages they share are counted for each."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def end_all(launcher: int) -> None:
    """Kills everything below the launcher, then the launcher, which must still be unreaped.

    The launcher goes last: while it lives every orphan comes back to it and is found again.
    """
    end_below(launcher)
    try:
        os.killpg(launcher, signal.SIGKILL)
    except ProcessLookupError:
        return


def end_below(launcher: int) -> None:
    """Kills all descendants, again and again until none is left: they may be forking meanwhile."""
    for _ in range(200):
        below = [pid for pid in descendants(launcher) if pid != launcher and not _is_zombie(pid)]
        if not below:
            break
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.005)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
