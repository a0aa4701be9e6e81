"""Start children that cannot outlive us, and end them with everything that they started."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1

# Marks every process of one home, however deep: inherited by whatever a child starts.
MARKER = "SLIPWAY_PROCESS"

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(sig: int, parent: int) -> None:
    """Ask the kernel for `sig` when the parent ends (Linux; elsewhere only the warden cleans up)."""
    if not hasattr(_libc, "prctl"):
        return
    _libc.prctl(PR_SET_PDEATHSIG, sig, 0, 0, 0)
    if os.getppid() != parent:  # it ended between fork and prctl
        os.kill(os.getpid(), signal.SIGKILL)


def spawn(
    command: list[str],
    *,
    log: Path | IO[bytes] | int,
    env: Mapping[str, str],
    cwd: Path,
    death_signal: int = signal.SIGKILL,
    become: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own with its output appended to `log`.

    Must be called in the main thread: the kernel ties the death signal to the thread that forks.
    `become` runs in the child first (to change the user, which resets the death signal).
    """
    parent = os.getpid()

    def prepare() -> None:
        if become is not None:
            become()
        die_with_parent(death_signal, parent)

    stream = log.open("ab") if isinstance(log, Path) else log
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=prepare,
        )
    finally:
        if isinstance(log, Path) and not isinstance(stream, int):
            stream.close()


def signal_group(pid: int, sig: int) -> None:
    """Signal the process group that `pid` leads; one that is gone is fine."""
    try:
        os.killpg(pid, sig)
    except ProcessLookupError:
        return


def marked(prefix: str) -> list[int]:
    """Processes whose environment carries MARKER with a value that starts with `prefix`."""
    wanted = f"{MARKER}={prefix}".encode()
    return [pid for pid in _pids() if any(v.startswith(wanted) for v in _read(pid, "environ").split(b"\0"))]


def working_in(folder: Path) -> list[int]:
    """Processes whose working folder is `folder` (a postmaster's backends, for example)."""
    found = []
    for pid in _pids():
        try:
            if Path(f"/proc/{pid}/cwd").samefile(folder):
                found.append(pid)
        except OSError:  # gone, or not ours to look at
            continue
    return found


def end(pids: Iterable[int], sig: int = signal.SIGKILL) -> None:
    """Signal each of `pids`, passing over those that are gone."""
    for pid in pids:
        try:
            os.kill(pid, sig)
        except (ProcessLookupError, PermissionError):
            continue


def end_all(find: Callable[[], list[int]], *, limit: float = 5.0) -> None:
    """SIGKILL whatever `find` finds until nothing is left or `limit` seconds have passed."""
    deadline = time.monotonic() + limit
    while (pids := find()) and time.monotonic() < deadline:
        end(pids)
        time.sleep(0.02)


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log file."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 16_384))
            text = stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _pids() -> list[int]:
    try:
        names = os.listdir("/proc")  # noqa: PTH208  (a thousand Path objects a second would be waste)
    except FileNotFoundError:
        return []
    mine = {os.getpid(), os.getppid()}
    return [int(name) for name in names if name.isdigit() and int(name) not in mine]


def _read(pid: int, name: str) -> bytes:
    try:
        data = Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # gone, or another user's
        return b""
    if name == "environ" and _is_zombie(pid):
        return b""
    return data


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"
