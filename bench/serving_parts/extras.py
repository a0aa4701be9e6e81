"""What a server does besides answering: many models, loading, swapping, shadows, batches.

Each function returns rows for the table: what was measured, the figure, what is asked of it, the parts it was
made of. Where a change is compared with its absence, the two take turns and medians are compared.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.serving_parts import models
from bench.serving_parts.drive import Load, wrk
from bench.serving_parts.ours import Plane, endpoint, following, plane, requests
from bench.serving_parts.processes import Child, free_port
from bench.serving_parts.requests import artifact

MANY = 200
ROUNDS = 3
# Connections, and the pause of each after an answer: what a server with time to spare gets.
PACED = {"tiny": (16, 10), "cnn": (2, 15)}


@contextmanager
def followed(folder: Path, processes: int) -> Iterator[tuple[Plane, Child, int]]:
    """A stub control plane that wishes for nothing yet, a server that follows it, and the server's port."""
    with ExitStack() as stack:
        wished = stack.enter_context(plane(folder))
        wished.publish()
        port = free_port()
        yield wished, stack.enter_context(following(wished, folder, processes, port)), port


def row(what: str, value: float, asked: str, good: bool | None, **figures: Any) -> dict[str, Any]:
    return {"what": what, "value": round(value, 3), "asked": asked, "ok": good, "figures": figures}


def paced(port: int, model: str, seconds: float, way: str = "binary") -> Load:
    """A load that leaves the server time, so that its latency is not merely the length of its queue."""
    connections, pause = PACED[model]
    request = requests(model, token=True)[way]
    wrk(port, request, connections, 1)  # what has just been loaded is awake
    return wrk(port, request, connections, seconds, pause_ms=pause)


def many(folder: Path, processes: int, seconds: float) -> list[dict[str, Any]]:
    """One model asked while it is alone and while 199 others are loaded; and all 200 asked in turn, which cannot share
    runs as requests for one do."""
    with followed(folder, processes) as (wished, child, port):
        digests = [wished.add(models.tiny(seed=i)) for i in range(MANY)]
        endpoints = [endpoint(f"tiny-{i}", wished.deployment(f"d{i}", digest)) for i, digest in enumerate(digests)]
        rates: dict[str, list[float]] = {"alone": [], "among": [], "in turn": []}
        memory: dict[int, float] = {}
        errors = 0
        for _ in range(3):
            for way, found in rates.items():
                count, asked = (1 if way == "alone" else MANY), (MANY if way == "in turn" else 1)
                generation = wished.publish(*endpoints[:count])
                wished.wait_ready(generation, {f"d{i}" for i in range(count)}, processes)
                paths = [f"/v2/models/tiny-{i % asked}/infer" for i in range(MANY)]
                load = wrk(port, requests("tiny", token=True)["json"], 32, seconds, paths=paths)
                found.append(load.rps)
                errors += load.errors
                memory.setdefault(count, child.memory_mib())
    among, in_turn = (median(rates[way]) / median(rates["alone"]) for way in ("among", "in turn"))
    facts = {"rps": rates, "memory_mib": memory, "errors": errors}
    return [
        row(
            f"a model among {MANY} loaded against alone, tiny JSON c=32",
            among,
            "≥ 0.9 ×",
            among >= 0.9 and errors == 0,
            **facts,
        ),
        row(f"{MANY} models in turn against one, tiny JSON c=32", in_turn, "no figure", None, **facts),
    ]


class _Meanwhile(threading.Thread):
    """Does something over and over until told to stop; counts, and keeps what went wrong."""

    def __init__(self, action: Callable[[int], None]) -> None:
        super().__init__(daemon=True)
        self.action = action
        self.count = 0
        self.error: Exception | None = None
        self.enough = threading.Event()

    def run(self) -> None:
        try:
            while not self.enough.is_set():
                self.action(self.count)
                self.count += 1
        except Exception as error:
            self.error = error

    def finish(self) -> int:
        """How often it was done. Raises what it raised."""
        self.enough.set()
        self.join()
        if self.error is not None:
            raise self.error
        return self.count


@contextmanager
def _counting(processes: int) -> Iterator[None]:
    """As many processes that only count, of the lowest priority there is: what a loader costs that costs nothing."""
    with ExitStack() as stack:
        for _ in range(processes):
            child = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(child.kill)
            os.sched_setscheduler(child.pid, os.SCHED_IDLE, os.sched_param(0))
        yield


def load(folder: Path, processes: int, seconds: float) -> list[dict[str, Any]]:
    """p99 of a model that answers while others of 100 MB come in, one after the other without a pause; beside it the
    limit, when as many processes of the lowest priority keep the processors awake and touch nothing."""
    rows = []
    with followed(folder, processes) as (wished, _, port):
        digests = [wished.add(models.large(note)) for note in "abc"]
        for model in ("tiny", "cnn"):
            steady = endpoint(model, wished.deployment(model, wished.add(artifact(model))))

            def another(turn: int, steady: dict[str, Any] = steady, model: str = model) -> None:
                ident = f"{model}-large-{turn}"
                large = endpoint("large", wished.deployment(ident, digests[turn % len(digests)]))
                wished.wait_ready(wished.publish(steady, large), {ident}, processes)

            quiet, counting, busy, loads, errors = [], [], [], 0, 0
            wished.wait_ready(wished.publish(steady), {model}, processes)
            for _ in range(ROUNDS):
                quiet.append(paced(port, model, seconds))
                with _counting(processes):
                    counting.append(paced(port, model, seconds))
                meanwhile = _Meanwhile(another)
                meanwhile.start()
                busy.append(paced(port, model, seconds))
                loads += meanwhile.finish()
                wished.publish(steady)
                time.sleep(0.5)
            errors = sum(one.errors for one in (*quiet, *counting, *busy))
            p99 = {"quiet": quiet, "counting": counting, "busy": busy}
            middle = {name: median(one.p99_ms for one in found) for name, found in p99.items()}
            figures = {f"{name}_p99_ms": [one.p99_ms for one in found] for name, found in p99.items()}
            for other, than in (("quiet", "nothing else"), ("counting", "processes that only count")):
                ratio = middle["busy"] / middle[other]
                rows.append(
                    row(
                        f"p99 of {model} while models of 100 MB are loaded, beside {than}",
                        ratio,
                        "≤ 1.2 ×",
                        ratio <= 1.2 and errors == 0,
                        **figures,
                        loads=loads,
                        errors=errors,
                    )
                )
    return rows


def swap(folder: Path, processes: int, seconds: float) -> list[dict[str, Any]]:
    """Requests lost while the deployment that answers them is replaced again and again."""
    with followed(folder, processes) as (wished, _, port):
        digests = [wished.add(models.tiny(note)) for note in "ab"]

        def replace(turn: int) -> None:
            new = wished.deployment(f"s{turn}", digests[turn % 2])
            wished.wait_ready(wished.publish(endpoint("tiny", new)), {f"s{turn}"}, processes)

        replace(0)
        before = wrk(port, requests("tiny", token=True)["json"], 8, seconds)
        meanwhile = _Meanwhile(replace)
        meanwhile.start()
        during = wrk(port, requests("tiny", token=True)["json"], 8, seconds)
        swaps = meanwhile.finish()
    lost = during.errors
    return [
        row(
            f"requests lost in {swaps} swaps, tiny JSON c=8",
            lost,
            "0",
            lost == 0 and swaps > 0,
            requests=during.requests,
            rps=[before.rps, during.rps],
            p99_ms=[before.p99_ms, during.p99_ms],
        )
    ]


def shadow(folder: Path, processes: int, seconds: float) -> list[dict[str, Any]]:
    """p99 with every request mirrored to a shadow deployment, against p99 without."""
    rows = []
    with followed(folder, processes) as (wished, _, port):
        for model in ("tiny", "cnn"):
            live = wished.deployment(f"{model}-live", wished.add(artifact(model)))
            copy = wished.deployment(f"{model}-copy", wished.add(artifact(model, "copy")), 0, "shadow")
            loads: dict[bool, list[Load]] = {False: [], True: []}
            for _ in range(ROUNDS):
                for mirrored, found in loads.items():
                    deployments = [live, copy] if mirrored else [live]
                    generation = wished.publish(endpoint(model, *deployments))
                    wished.wait_ready(generation, {one["id"] for one in deployments}, processes)
                    found.append(paced(port, model, seconds))
            errors = sum(one.errors for found in loads.values() for one in found)
            p99 = {mirrored: [one.p99_ms for one in found] for mirrored, found in loads.items()}
            ratio = median(p99[True]) / median(p99[False])
            rows.append(
                row(
                    f"p99 of {model} with a shadow against without",
                    ratio,
                    "< 1.05 ×",
                    ratio < 1.05 and errors == 0,
                    without_p99_ms=p99[False],
                    with_p99_ms=p99[True],
                    errors=errors,
                )
            )
    return rows


def batch(folder: Path, processes: int, seconds: float) -> list[dict[str, Any]]:
    """A model whose weights are most of its cost, with batching on its own and switched off."""
    with followed(folder, processes) as (wished, _, port):
        digest = wished.add(artifact("mlp"))
        request = requests("mlp", token=True)["binary"]
        crowd: dict[str, list[Load]] = {"off": [], "auto": []}
        alone: dict[str, list[Load]] = {"off": [], "auto": []}
        for turn in range(ROUNDS):
            for mode in crowd:
                ident = f"{mode}-{turn}"
                wish = endpoint("mlp", wished.deployment(ident, digest), batching={"mode": mode})
                wished.wait_ready(wished.publish(wish), {ident}, processes)
                crowd[mode].append(wrk(port, request, 32, seconds))
                alone[mode].append(wrk(port, request, 1, seconds))
    errors = sum(one.errors for found in (*crowd.values(), *alone.values()) for one in found)
    rps = {mode: [one.rps for one in found] for mode, found in crowd.items()}
    p50 = {mode: [one.p50_ms for one in found] for mode, found in alone.items()}
    gain = median(rps["auto"]) / median(rps["off"])
    price = median(p50["auto"]) / median(p50["off"])
    return [
        row(
            "batching auto against off, mlp c=32, rate",
            gain,
            "> 1.1 ×",
            gain > 1.1 and errors == 0,
            rps=rps,
            errors=errors,
        ),
        row("batching auto against off, mlp c=1, p50", price, "≤ 1.05 ×", price <= 1.05, p50_ms=p50),
    ]
