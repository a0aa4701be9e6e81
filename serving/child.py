"""One serving process: its own listening socket, event loop, models and agent."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import functools
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from serving.compute import Cores
from serving.options import Options
from serving.priority import run_at_once
from serving.spread import Spread

if TYPE_CHECKING:
    from serving.grpc_server import Door
    from serving.runtime import Runtime

log = logging.getLogger("serving.child")

# On SIGTERM answers say "connection: close" and readiness says no for this long before the socket closes:
# load balancers and pooled connections leave by themselves instead of being cut.
LAME_DUCK_S = 0.3
START_S = 60.0
_PR_SET_PDEATHSIG = 1
# The kernel's table of descriptors grows to the highest one: 512 kB for this many.
_TOP = 1 << 16


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent goes, however that happens."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we asked
        os._exit(0)


def leaving_signals() -> list[signal.Signals]:
    """What ends the server in good order; a terminal that goes away as well, unless that is to be ignored (nohup)."""
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, signal.SIGINT, *hangup]


def listen(host: str, port: int) -> socket.socket:
    """This process's own socket: the kernel spreads connections over all that share the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    sock.setblocking(False)
    return _on_top(sock)


def _on_top(sock: socket.socket) -> socket.socket:
    """The same socket under a descriptor above those of connections. The kernel lets go of a killed process's
    highest descriptors first: who is cut off must not find this process's queue still open and be cut off again.
    Measured over 7,500 connections cut by kill -9: 93 of those that came back at once met it so, then none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = _TOP if soft == resource.RLIM_INFINITY else min(soft, _TOP)
    with sock:
        fileno = fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, top - 1)
    return socket.socket(fileno=fileno)


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handling: draining is ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run_child(options: Options, index: int, port: int, run_folder: Path, cores: Cores, spread: Spread) -> None:
    """Serve until SIGTERM; ends the process with 0 after a drain."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=f"serving[{index}] %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of each request that is none
    import uvloop

    # A thread that wants the interpreter's lock waits this long for it: the event loop must not wait 5 ms for the
    # thread that loads a model.
    sys.setswitchinterval(0.0005)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options, index, port, run_folder, cores, spread))
    # Threads that hang in a model must not keep the process: everything worth saving is saved.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _serve(options: Options, index: int, port: int, run_folder: Path, cores: Cores, spread: Spread) -> None:
    from serving.agent import Agent
    from serving.app import App
    from serving.control import Control
    from serving.folder import load_folder
    from serving.metrics import Snapshots
    from serving.protocol_http import Protocol
    from serving.reporter import Reporter
    from serving.runtime import Runtime
    from serving.slow import watch
    from serving.store import Store
    from serving.wire import Wire

    loop = asyncio.get_running_loop()
    runtime = Runtime(options, index, Snapshots(run_folder, index), cores)
    member = spread.member(index) if options.processes > 1 else None
    wire = Wire(runtime, loop, member)
    config = uvicorn.Config(
        App(wire),
        http=functools.partial(Protocol, wire),  # type: ignore[arg-type]
        proxy_headers=False,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=2048,
        timeout_keep_alive=int(options.keep_alive_s),
        timeout_graceful_shutdown=max(1, int(options.drain_s)),
    )
    server = _Server(config)

    door: Door | None = None
    leaving: list[asyncio.Task[None]] = []

    def leave() -> None:
        server.should_exit = True
        if door is not None:
            leaving.append(loop.create_task(door.stop(options.drain_s)))

    def drain() -> None:
        if runtime.draining:
            return
        runtime.draining = True
        if member is not None:
            member.leave()
        loop.call_later(LAME_DUCK_S, leave)

    for sig in leaving_signals():
        loop.add_signal_handler(sig, drain)

    tasks: list[asyncio.Task[None]] = []
    agent: Agent | None = None
    reporter: Reporter | None = None
    if options.models is not None:
        runtime.swap(await asyncio.to_thread(load_folder, options.models))
    elif options.home is not None:
        store = Store(options.home, options.gc_grace_s)
        control = Control(options.control_url, options.read_token) if options.control_url else None
        agent = Agent(runtime, loop, store, control)
        if options.control_url:
            reporter = Reporter(runtime, agent, Control(options.control_url, options.read_token))
            tasks.append(loop.create_task(reporter.run()))
        agent.start()
        # A process must not answer "still loading" where its siblings answer.
        await asyncio.to_thread(agent.settled.wait, START_S)
    tasks.append(loop.create_task(watch(wire.clock, wire.limits, server.server_state.connections)))
    tasks.append(loop.create_task(_keep_snapshot(runtime, discard=reporter is None)))
    if options.grpc_port is not None:
        from serving.grpc_server import Door
    # What is loaded stays: the collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    # Listen only now: a socket that is bound but served by a busy process would take connections and let
    # them wait, while its siblings could answer.
    if options.grpc_port is not None:
        door = Door(wire)
        await door.start(options.host, options.grpc_port)
    if member is not None:
        handed = functools.partial(Protocol, wire, config=config, server_state=server.server_state, app_state={})
        member.join(loop, handed)
    run_at_once()
    sock = listen(options.host, port)
    sock.listen(config.backlog)
    runtime.listening = True
    if runtime.on_health is not None:
        runtime.on_health()
    await server.serve(sockets=[sock])
    await asyncio.gather(*leaving)
    for task in tasks:
        task.cancel()
    if agent is not None:
        agent.stopping.set()
    if reporter is not None:
        await reporter.flush(seconds=2)
    with contextlib.suppress(OSError):
        runtime.snapshots.write(runtime.snapshot())


async def _keep_snapshot(runtime: Runtime, discard: bool) -> None:
    """Write this process's numbers every second, for whichever process is asked for metrics."""
    failing = False
    while True:
        if discard:
            runtime.recorder.take()  # no control plane wants the windows; totals stay
        try:
            await asyncio.to_thread(runtime.snapshots.write, runtime.snapshot())
            failing = False
        except OSError as error:
            if not failing:
                log.warning("metrics of this process cannot be shared: %s", error.strerror)
            failing = True
        await asyncio.sleep(1)
