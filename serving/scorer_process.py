"""The supervisor's side of the PMML scorer: it holds the socket, starts the process when models want it, watches it.

One Java virtual machine for a server, not one for each process or model: it takes 150 MB before it has loaded
anything, and what it has compiled serves all models. The price is that one model's exhausted heap takes the others'
answers with it for the second or two that a start takes.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

from serving.options import Options

# As with the server's own processes: what lived shorter failed to start.
QUICK_DEATH_S = 10.0
MAX_DELAY_S = 10.0


def socket_path(run_folder: Path) -> Path:
    return run_folder / "pmml.sock"


def problem_path(run_folder: Path) -> Path:
    """The file with the reason why the last scorer ended by itself, as `engine.sandbox` writes it."""
    return run_folder / "pmml-problem"


def wish_path(run_folder: Path, index: int) -> Path:
    """The file by which a process says that it has PMML models."""
    return run_folder / f"pmml-wanted-{index}"


def address(folder: int, path: Path) -> str:
    """The address of a Unix socket in an open folder: a socket's path may have 107 bytes, a folder's any number."""
    return f"/proc/self/fd/{folder}/{path.name}"


class ScorerProcess:
    """At most one process. Used in the supervisor's thread alone, which is its only one: so it may fork."""

    def __init__(self, options: Options, run_folder: Path) -> None:
        self._options = options
        self._folder = run_folder
        self.pid: int | None = None
        self._started = 0.0
        self._deaths = 0
        self._due = 0.0
        # Held here, so that a connection made while it starts again waits instead of being refused.
        self._socket = socket.socket(socket.AF_UNIX)
        folder = os.open(run_folder, os.O_PATH)
        try:
            self._socket.bind(address(folder, socket_path(run_folder)))
        finally:
            os.close(folder)
        self._socket.listen(128)

    def tend(self) -> None:
        """Start it where some process has PMML models, end it where none has any more."""
        wanted = self._wanted()
        if self.pid is not None:
            if not wanted:
                self.signal(signal.SIGKILL)
            return
        python = self._options.pmml_python
        if wanted and python is not None and python.exists() and time.monotonic() >= self._due:
            self._start(python)

    def _wanted(self) -> bool:
        return any(wish_path(self._folder, index).exists() for index in range(self._options.processes))

    def _start(self, python: Path) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self.pid, self._started = pid, time.monotonic()
            return
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            self._socket.set_inheritable(True)
            command = [sys.executable, "-m", "engine.scorer", "--python", str(python), "--parent", str(parent)]
            command += ["--socket-fd", str(self._socket.fileno()), "--heap-mb", str(self._options.pmml_heap_mb)]
            command += ["--run-s", str(self._options.pmml_run_s)]
            command += ["--scratch", str(self._folder / "pmml"), "--result", str(problem_path(self._folder))]
            os.execv(command[0], command)  # noqa: S606
        except BaseException:  # the fork must end here, not go on as a second parent
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)

    def ended(self, status: int) -> None:
        """It was reaped: start it again at once, later each time it dies young."""
        self.pid = None
        quick = time.monotonic() - self._started < QUICK_DEATH_S
        self._deaths = self._deaths + 1 if quick else 0
        delay = min(MAX_DELAY_S, 0.25 * 2 ** (self._deaths - 1)) if self._deaths > 1 else 0.0
        self._due = time.monotonic() + delay
        if self._wanted():
            reason = os.waitstatus_to_exitcode(status)
            print(f"serving: the PMML scorer ended with {reason}; starting it again", file=sys.stderr, flush=True)

    def signal(self, number: int) -> None:
        if self.pid is not None:
            os.kill(self.pid, number)
