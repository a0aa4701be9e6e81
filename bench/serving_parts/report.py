"""The bench's tables, and what the figures were to reach."""

from __future__ import annotations

import os
import platform as machine
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

OURS = "slipway"
PACKAGES = ("onnxruntime", "uvicorn", "uvloop", "httptools", "pysimdjson", "orjson", "numpy")

Cells = list[dict[str, Any]]


def about(processes: int, peers: dict[str, str]) -> dict[str, Any]:
    """Machine, versions and peers."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = installed(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cpu": names[0] if names else machine.processor(),
        "cores": os.cpu_count(),
        "cores_used": processes,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": machine.platform(),
        "python": machine.python_version(),
        **versions,
        "peers": peers,
    }


def find(cells: Cells, server: str, workload: str, connections: int) -> dict[str, Any] | None:
    """The cell of a server for a workload, if it was measured."""
    for cell in cells:
        if (cell["server"], cell["workload"], cell["connections"]) == (server, workload, connections):
            return cell
    return None


def limit_of(limits: dict[str, Any], kind: str, cell: dict[str, Any]) -> float | None:
    """The rate a cell is held against: `raw` of its model, or `hello` at its connections."""
    if kind == "raw":
        rate = limits.get("raw", {}).get(cell["workload"].split()[0])
    else:
        rate = limits.get("hello", {}).get(str(cell["connections"])) if cell["workload"].startswith("tiny") else None
    return cell["rps"] / rate if rate else None


def show_servers(servers: list[dict[str, Any]]) -> None:
    print(f"\n{'server':26}{'model':8}{'first right answer':>20}{'memory MiB':>12}   remarks")
    for one in servers:
        notes = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in one.get("notes", {}).items())
        print(f"{one['server']:26}{one['model']:8}{one['cold_s']:>18.2f} s{one['memory_mib']:>12.0f}   {notes}")


def show_cells(cells: Cells, limits: dict[str, Any]) -> None:
    """Rates, latencies and the part of both limits that was reached."""
    for model, rate in limits.get("raw", {}).items():
        print(f"\nraw session calls, {model}: {rate:,.0f}/s", end="")
    print("\nbare hello: ", ", ".join(f"c={c} {rate:,.0f}/s" for c, rate in limits.get("hello", {}).items()) or "–")
    print(f"\n{'workload':14}{'c':>4}  {'server':26}{'req/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'errors':>8}", end="")
    print(f"{'of raw':>9}{'of hello':>10}")
    for cell in sorted(cells, key=lambda cell: (cell["workload"], cell["connections"])):
        parts = [limit_of(limits, kind, cell) for kind in ("raw", "hello")]
        raw, hello = (f"{part:.2f}" if part is not None else "–" for part in parts)
        print(
            f"{cell['workload']:14}{cell['connections']:>4}  {cell['server']:26}{cell['rps']:>10,.0f}"
            f"{cell['p50_ms']:>10.2f}{cell['p99_ms']:>10.2f}{cell['errors']:>8}{raw:>9}{hello:>10}"
            + (f"   ({cell['why']})" if cell["why"] else "")
        )


def reach(cells: Cells, limits: dict[str, Any], extras: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is asked, what was found; `ok` is None where the figures for it are missing."""
    rows: list[dict[str, Any]] = []

    def line(what: str, value: float | None, least: bool, asked: float, unit: str = "×") -> None:
        good = None if value is None else (value >= asked if least else value <= asked)
        sign = "≥" if least else "≤"
        found = None if value is None else round(value, 3)
        rows.append({"what": what, "value": found, "asked": f"{sign} {asked:g} {unit}", "ok": good})

    def against(workload: str, connections: int, other: str) -> float | None:
        mine, theirs = (find(cells, who, workload, connections) for who in (OURS, other))
        return mine["rps"] / theirs["rps"] if mine and theirs and theirs["rps"] else None

    def share(workload: str, connections: int, kind: str) -> float | None:
        mine = find(cells, OURS, workload, connections)
        return limit_of(limits, kind, mine) if mine else None

    line("tiny JSON c=32, of bare hello", share("tiny json", 32, "hello"), True, 0.5)
    line("tiny JSON c=32, of Triton", against("tiny json", 32, "triton"), True, 4)
    line("tiny JSON c=32, of TorchServe", against("tiny json", 32, "torchserve"), True, 4)
    line("tiny JSON c=32, of MLServer", against("tiny json", 32, "mlserver"), True, 12)
    cell = find(cells, OURS, "tiny json", 8)
    line("tiny JSON c=8, p99", cell["p99_ms"] if cell else None, False, 2, "ms")
    line("cnn binary c=8, of raw calls", share("cnn binary", 8, "raw"), True, 0.95)
    line("cnn binary c=8, of Triton", against("cnn binary", 8, "triton"), True, 2)
    cell = find(cells, OURS, "cnn binary", 8)
    line("cnn binary c=8, p99 to p50", cell["p99_ms"] / cell["p50_ms"] if cell else None, False, 1.5)
    line("cnn JSON c=8, of raw calls", share("cnn json", 8, "raw"), True, 0.6)
    line("cnn JSON c=8, of Triton", against("cnn json", 8, "triton"), True, 2)
    mine = [cell for cell in cells if cell["server"] == OURS]
    line("requests of all cells that failed", sum(c["errors"] for c in mine) if mine else None, False, 0, "")
    rows += [{key: extra[key] for key in ("what", "value", "asked", "ok")} for extra in extras]
    return rows


def show_reach(rows: list[dict[str, Any]]) -> None:
    print(f"\n{'what is asked':52}{'found':>10}   {'asked':12}reached")
    for row in rows:
        found = "–" if row["value"] is None else f"{row['value']:.2f}"
        word = {True: "yes", False: "NO", None: "not measured" if row["value"] is None else "–"}[row["ok"]]
        print(f"{row['what']:52}{found:>10}   {row['asked']:12}{word}")


def show_extras(extras: list[dict[str, Any]]) -> None:
    """The parts that ratios were made of."""
    for extra in extras:
        parts = "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in extra["figures"].items())
        print(f"{extra['what']}: {extra['value']:g} ({parts})")


def show(
    facts: dict[str, Any],
    cells: Cells,
    limits: dict[str, Any],
    servers: list[dict[str, Any]],
    extras: list[dict[str, Any]],
    skipped: dict[str, str],
    rows: list[dict[str, Any]],
) -> None:
    """Everything, for a person."""
    if servers:
        show_servers(servers)
    if cells:
        show_cells(cells, limits)
    if extras:
        print()
        show_extras(extras)
    show_reach(rows)
    for what, why in skipped.items():
        print(f"\nleft out: {what}: {why}")
    absent = [name for name, version in facts["peers"].items() if version == "not installed"]
    if absent:
        print(f"\npeers not installed and left out: {', '.join(absent)}")
    print("\n" + ", ".join(f"{name} {value}" for name, value in facts.items() if name != "peers"))
    present = [f"{name} {version}" for name, version in facts["peers"].items() if version != "not installed"]
    if present:
        print(f"peers: {', '.join(present)}")
