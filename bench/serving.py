"""The inference server beside bare limits and other servers, on the same cores.

Every server runs alone, one after the other, and is driven by wrk from the same cores. Ours runs as it is used:
following a control plane, sending reports, with a token, two live deployments and metrics. Peers run where
`bench/serving_peers/install.py` put them; one that is not installed is named and left out.

    python bench/serving.py [--quick] [--only tiny,cnn,grpc,…] [--peers DIR] [--peer NAME …] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.serving_parts import extras, grpc, limits, ours, report  # noqa: E402
from bench.serving_parts.drive import wrk  # noqa: E402
from bench.serving_parts.processes import BenchError, Running, cores, tool  # noqa: E402
from bench.serving_parts.requests import ask  # noqa: E402
from bench.serving_peers.peer import Peer, Start  # noqa: E402
from bench.serving_peers.registry import PEERS  # noqa: E402

MODELS = ("tiny", "cnn")
MORE: dict[str, Callable[[Path, int, float], list[dict[str, Any]]]] = {
    "grpc": grpc.compare,
    "many": extras.many,
    "load": extras.load,
    "swap": extras.swap,
    "shadow": extras.shadow,
    "batch": extras.batch,
}
ALONE = f"{report.OURS} standalone"

Runner = Callable[[str, Path, int], AbstractContextManager[Running]]


@dataclass(frozen=True)
class Plan:
    """Which cells of a model are measured, and for how long each."""

    ways: dict[str, dict[str, list[int]]]
    seconds: float
    alone: bool


FULL = Plan(
    {"tiny": {"json": [1, 8, 32], "binary": [1, 8, 32]}, "cnn": {"binary": [1, 8, 32], "json": [1, 8, 32]}}, 5, True
)
QUICK = Plan({"tiny": {"json": [8, 32]}, "cnn": {"binary": [8]}}, 2, False)


class Bench:
    """Figures as they come in."""

    def __init__(self, plan: Plan, processes: int, folder: Path) -> None:
        self.plan = plan
        self.processes = processes
        self.folder = folder
        self.cells: list[dict[str, Any]] = []
        self.servers: list[dict[str, Any]] = []
        self.limits: dict[str, Any] = {"raw": {}, "hello": {}}
        self.raws: dict[str, list[float]] = {}
        self.extras: list[dict[str, Any]] = []
        self.skipped: dict[str, str] = {}

    def place(self, name: str) -> Path:
        made = Path(tempfile.mkdtemp(prefix=f"{name.replace(' ', '-')}-", dir=self.folder))
        return made

    def raw(self, model: str) -> None:
        say(f"raw calls of {model}")
        rate = limits.raw_calls(model, self.processes, self.plan.seconds, self.place("raw"))
        self.raws.setdefault(model, []).append(rate)
        self.limits["raw"][model] = round(statistics.mean(self.raws[model]), 1)

    def server(self, name: str, run: Runner, model: str) -> None:
        """Start a server with a model, fill its cells, end it."""
        say(f"{name}, {model}")
        folder = self.place(name)
        try:
            with run(model, folder, self.processes) as running:
                self._measure(name, running, model)
        except BenchError as error:
            self.skipped[f"{name}, {model}"] = str(error)
            say(f"{name}, {model}: {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _measure(self, name: str, running: Running, model: str) -> None:
        ways = self.plan.ways[model]
        first = running.requests[next(way for way in (*ways, "json", "binary") if way in running.requests)]
        cold = running.child.first_right(running.port, first)
        measured = []
        for way, counts in ways.items():
            request = running.requests.get(way)
            if request is None:
                continue
            running.child.first_right(running.port, request, seconds=20)
            wrk(running.port, request, 8, 1)  # the second worker is awake, too
            for connections in counts:
                load = wrk(running.port, request, connections, self.plan.seconds)
                measured.append({"server": name, "workload": f"{model} {way}", **load.row()})
        memory = running.child.memory_mib()
        self.cells += measured
        if name == report.OURS and model == "tiny":
            self.hello(running)
        self.servers.append(
            {"server": name, "model": model, "cold_s": cold, "memory_mib": memory, "notes": running.notes()}
        )

    def hello(self, running: Running) -> None:
        """Bare HTTP, with the request and the size of the answer of the server that now is idle."""
        say("bare hello")
        request, counts = running.requests["json"], self.plan.ways["tiny"]["json"]
        size = len(ask(running.port, request)[2])
        folder = self.place("hello")
        found = limits.bare_http(request, size, self.processes, counts, self.plan.seconds, folder)
        self.limits["hello"] = {str(load.connections): load.rps for load in found}
        self.limits["hello_bytes"] = size

    def more(self, name: str) -> None:
        """One of the sections beyond plain answers."""
        say(name)
        folder = self.place(name)
        try:
            self.extras += MORE[name](folder, self.processes, self.plan.seconds)
        except BenchError as error:
            self.skipped[name] = str(error)
            say(f"{name}: left out, {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def peer_runner(peer: Peer, home: Path) -> Runner:
    return lambda model, folder, processes: peer.run(Start(home, model, folder, processes))


def installed_peers(folder: Path | None, wanted: list[str]) -> dict[str, str]:
    """Version of each peer that is installed; "not installed" for the others."""
    found = {}
    for name in wanted:
        version = PEERS[name].version(folder / name) if folder else None
        found[name] = version or "not installed"
    return found


def measure(bench: Bench, only: list[str], peers: dict[str, Runner]) -> None:
    servers: dict[str, Runner] = {report.OURS: ours.product}
    if bench.plan.alone:
        servers[ALONE] = ours.standalone
    for model in (name for name in MODELS if name in only):
        bench.raw(model)
        for name, run in {**servers, **peers}.items():
            bench.server(name, run, model)
            if name == report.OURS:
                bench.raw(model)  # the machine's speed wanders: the limit is what held before and after
    for name in (name for name in MORE if name in only):
        bench.more(name)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--quick", action="store_true", help="limits and our server alone, under a minute")
    add("--only", metavar="LIST", help=f"some of {','.join((*MODELS, *MORE))}")
    add("--peers", type=Path, metavar="DIR", help="where the peers were installed")
    add("--peer", action="append", choices=sorted(PEERS), help="only this one (may be repeated)")
    add("--cores", type=int, default=2, help="cores that servers and client share, and processes (default: 2)")
    add("--seconds", type=float, help="length of one run (default: 5, with --quick 2)")
    add("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    known = {*MODELS, *MORE}
    options.only = options.only.split(",") if options.only else list(MODELS if options.quick else (*MODELS, *MORE))
    if unknown := set(options.only) - known:
        parser.error(f"--only knows {', '.join(sorted(known))}, not {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    options = arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that whatever runs is ended
    tool("wrk")
    options.peers = options.peers and options.peers.resolve()  # servers are started in folders of their own
    os.sched_setaffinity(0, cores()[: options.cores])
    plan = QUICK if options.quick else FULL
    plan = Plan(plan.ways, options.seconds or plan.seconds, plan.alone)
    # The sections beyond plain answers, and a quick run, are about our server alone.
    compared = set(MODELS) & set(options.only) and not options.quick
    wanted = options.peer or (list(PEERS) if compared else [])
    versions = installed_peers(options.peers, wanted)
    facts = report.about(len(cores()), versions)
    runners = {
        name: peer_runner(PEERS[name], options.peers / name) for name, found in versions.items() if found[0].isdigit()
    }
    folder = Path(tempfile.mkdtemp(prefix="slipway-bench-"))
    bench = Bench(plan, len(cores()), folder)
    try:
        measure(bench, options.only, runners)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = report.reach(bench.cells, bench.limits, bench.extras)
    report.show(facts, bench.cells, bench.limits, bench.servers, bench.extras, bench.skipped, rows)
    if options.json:
        given = {
            "bench": "serving",
            "machine": facts,
            "seconds": plan.seconds,
            "limits": bench.limits,
            "servers": bench.servers,
            "cells": bench.cells,
            "extras": bench.extras,
            "left_out": bench.skipped,
            "reach": rows,
        }
        options.json.write_text(json.dumps(given, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench: {error}")
