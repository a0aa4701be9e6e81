"""The parent: forks one child per core, starts a lost one again, and drains them all on SIGTERM.

It stays single-threaded and loads no models, so that forking is safe and quick; what children need is
imported here already, except ONNX Runtime, which starts threads of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path

import httpx  # noqa: F401 - imported before the fork, for quick restarts
import numpy as np  # noqa: F401
import orjson  # noqa: F401
import simdjson  # noqa: F401
import uvicorn.protocols.http.httptools_impl  # noqa: F401

from serving.child import die_with_parent, leaving_signals, run_child
from serving.compute import Cores
from serving.options import Options
from serving.scorer_process import ScorerProcess
from serving.spread import Spread

# A child that lived shorter than this failed to start: the next one waits, longer each time.
QUICK_DEATH_S = 2.0
MAX_DELAY_S = 10.0


def reserve(host: str, port: int) -> socket.socket:
    """Hold the port for this server: bound but not listening, so that no connection comes here.

    Raises OSError when someone else has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without SO_REUSEPORT first: with it, a second server of the same user would silently share the port.
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        port = probe.getsockname()[1]
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    return sock


class Supervisor:
    """Keeps `options.processes` children running."""

    def __init__(self, options: Options, port: int, run_folder: Path) -> None:
        self.options = options
        self.port = port
        self.run_folder = run_folder
        self.cores = Cores(len(os.sched_getaffinity(0)), options.processes)
        self.spread = Spread(options.processes)
        self.scorer = ScorerProcess(options, run_folder) if options.pmml_python is not None else None
        self.children: dict[int, tuple[int, float]] = {}  # pid -> (index, started)
        self.due: dict[int, float] = {}  # index -> when to start it
        self.quick_deaths: dict[int, int] = {}
        self.stopping = False

    def run(self) -> int:
        """Until SIGTERM, SIGINT or SIGHUP; the exit code."""
        signals = {signal.SIGCHLD, *leaving_signals()}
        # Blocked and waited for, so that none comes between two steps.
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        for index in range(self.options.processes):
            self._start(index)
        while not self.stopping:
            now = time.monotonic()
            if self.scorer is not None:
                self.scorer.tend()
            timeout = min([1.0, *(max(0.0, at - now) for at in self.due.values())])
            info = signal.sigtimedwait(signals, timeout)
            if info is not None and info.si_signo != signal.SIGCHLD:
                self.stopping = True
                break
            self._reap()
            for index in [i for i, at in self.due.items() if at <= time.monotonic()]:
                del self.due[index]
                self._start(index)
        return self._stop()

    def _start(self, index: int) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self.children[pid] = (index, time.monotonic())
            return
        code = 1
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            die_with_parent(parent)
            run_child(self.options, index, self.port, self.run_folder, self.cores, self.spread)
            code = 0
        except BaseException:  # the fork must end here, not go on as a second parent
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.scorer is not None and pid == self.scorer.pid:
                self.scorer.ended(status)
                continue
            found = self.children.pop(pid, None)
            if found is None:
                continue
            index, started = found
            self.cores.set(index, 0)
            self.spread.leave(index)
            if self.stopping:
                continue
            quick = time.monotonic() - started < QUICK_DEATH_S
            deaths = self.quick_deaths[index] = self.quick_deaths.get(index, 0) + 1 if quick else 0
            # The first restart is at once; a child that dies again and again waits.
            delay = min(MAX_DELAY_S, 0.25 * 2 ** (deaths - 1)) if deaths > 1 else 0.0
            self.due[index] = time.monotonic() + delay
            reason = os.waitstatus_to_exitcode(status)
            print(
                f"serving: process {index} (pid {pid}) ended with {reason}; starting it again"
                + (f" in {delay:g} s" if delay else ""),
                file=sys.stderr,
                flush=True,
            )

    def _stop(self) -> int:
        """Drain all children; those that outlast the limit are killed. 0 when all drained."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + self.options.drain_s + 4
        while self.children and time.monotonic() < deadline:
            signal.sigtimedwait({signal.SIGCHLD}, 0.2)
            self._reap()
        code = 1 if self.children else 0
        self._signal(signal.SIGKILL)
        if self.scorer is not None:  # until now it answered for those that drained
            self.scorer.signal(signal.SIGKILL)
        while self.children or (self.scorer is not None and self.scorer.pid is not None):
            signal.sigtimedwait({signal.SIGCHLD}, 0.2)
            self._reap()
        return code

    def _signal(self, number: int) -> None:
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def supervise(options: Options) -> int:
    """Run the server; its exit code. A port in use is one sentence and 1."""
    if options.trust_keys is not None:
        import engine.formats.signing  # noqa: F401 - before the fork, as above
    with contextlib.ExitStack() as held:
        ports = []
        for wanted in (options.port, options.grpc_port):
            if wanted is None:
                continue
            try:
                sock = held.enter_context(reserve(options.host, wanted))
            except OSError as error:
                what = "is already in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
                print(f"serving: port {wanted} on {options.host} {what}.", file=sys.stderr)
                return 1
            ports.append(sock.getsockname()[1])
        host = f"[{options.host}]" if ":" in options.host else options.host
        for scheme, port in zip(("http", "grpc"), ports, strict=False):
            print(f"serving: listening on {scheme}://{host}:{port}", flush=True)
        if options.grpc_port is not None:
            options = dataclasses.replace(options, grpc_port=ports[1])
        # A connection is a descriptor, and the usual soft limit is 1,024.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        run_folder = held.enter_context(tempfile.TemporaryDirectory(prefix="slipway-serving-"))
        return Supervisor(options, ports[0], Path(run_folder)).run()
