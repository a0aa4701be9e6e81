"""Runs a command and ends all that came of it when its standard input closes, however that happened.

Whatever a server starts, a daemon included, stays below this process (a "child subreaper"), and a closed pipe
tells it even of a bench that was killed. Standard library only: it starts quickly and stays small.

    python guard.py COMMAND [ARGUMENT …]
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PATIENCE_S = 4.0


def descendants(pid: int) -> list[int]:
    """Process ids of everything below a process, which is not among them."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for word in (task / "children").read_text().split():
                found += [int(word), *descendants(int(word))]
    return found


def reap() -> None:
    """Take in the children that ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def tell(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end(child: int) -> None:
    """Ask the command to stop, then everybody, then do not ask."""
    tell([child], signal.SIGTERM)
    began = time.monotonic()
    asked_all = False
    while True:
        reap()
        left = descendants(os.getpid())
        if not left:
            return
        waited = time.monotonic() - began
        if waited > PATIENCE_S:
            tell(left, signal.SIGKILL)
        elif waited > PATIENCE_S / 2 and not asked_all:
            asked_all = True
            tell(left, signal.SIGTERM)
        time.sleep(0.02)


def main() -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    told = threading.Event()
    pipe = os.dup(0)

    def wait_for_end() -> None:
        while os.read(pipe, 1024):
            pass
        told.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    # When the command started and as which process, for the one who waits for its first answer.
    began = time.monotonic()
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    print(began, child.pid, flush=True)
    while not told.wait(0.1):
        if child.poll() is not None:
            break
    end(child.pid)


if __name__ == "__main__":
    main()
