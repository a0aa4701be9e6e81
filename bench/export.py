"""Exports of a small zoo, source by format: parity, size, time; and what the sandbox costs.

Models are trained from data in scikit-learn's package, each in the environment that exports it. Environments are
prepared where they are not there yet, which needs the network; `--quick` keeps to the worker's own packages.

    python bench/export.py [--quick] [--environments DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from bench.export_parts import zoo  # noqa: E402
from bench.serving_parts import models  # noqa: E402
from engine import sandbox  # noqa: E402
from engine.errors import EngineError  # noqa: E402
from engine.export import environments  # noqa: E402
from engine.export.base import exporters  # noqa: E402
from engine.export.installing import Tools  # noqa: E402
from engine.export.sources.base import source_of  # noqa: E402

LIMITS = sandbox.Limits(seconds=600, memory_mb=6144)
KINDS = ("sklearn", "xgboost", "pytorch", "keras")


class Bench:
    def __init__(self, folder: Path, kept: Path, quick: bool) -> None:
        self.folder, self.kept, self.quick = folder, kept, quick

    def python(self, name: str | None) -> Path | None:
        """Interpreter of an environment; None for this one."""
        if name is None:
            return None
        return environments.prepare(ROOT / "locks" / f"{name}.txt", self.kept, tools=Tools("uv"))

    def run(self, task: str, python: Path | None = None, params: dict[str, Any] | None = None, **inputs: Path) -> Any:
        return sandbox.run(
            task, params=params or {}, inputs=inputs, scratch=self.folder / "scratch", limits=LIMITS, python=python
        )

    def starts(self) -> dict[str, float]:
        """Median seconds of a bare interpreter, and of the sandbox doing nothing."""
        bare, boxed = [], []
        for _ in range(3 if self.quick else 9):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-I", "-c", "import json"], check=True)
            bare.append(time.perf_counter() - began)
            began = time.perf_counter()
            sandbox.run(
                "nothing:nothing", params={}, inputs={}, scratch=self.folder / "scratch", code=[self.folder / "code"]
            )
            boxed.append(time.perf_counter() - began)
        return {"bare_s": statistics.median(bare), "sandbox_s": statistics.median(boxed)}

    def upload(self) -> dict[str, float]:
        """Seconds from 50 MB of ONNX to ready: check, export with parity, measurement."""
        file = self.folder / "large.onnx"
        file.write_bytes(models.mlp(layers=12))
        spent = {}
        for name, task, params, inputs in (
            ("check_s", "engine.scan.tasks:check_onnx", {}, {"file": file}),
            ("export_s", "engine.export.tasks:export", {"exporter": "onnx", "framework": "onnx"}, {"source": file}),
            ("measure_s", "engine.evaluate.tasks:measure", {}, {"model": file}),
        ):
            began = time.perf_counter()
            self.run(task, params=params, **inputs)
            spent[name] = time.perf_counter() - began
        return {"mb": file.stat().st_size / 1e6, **spent, "all_s": sum(spent.values())}

    def cells(self) -> list[dict[str, Any]]:
        found = []
        zoo.write_digits(self.folder / "digits.npz")
        for kind in KINDS[:1] if self.quick else KINDS:
            python = self.python(source_of(kind).environment)
            place = self.folder / kind
            place.mkdir()
            program = [str(python or sys.executable), zoo.__file__, kind, str(place)]
            subprocess.run(program, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for model in sorted(place.iterdir()):
                found += [self.cell(kind, model, name) for name in self.formats(kind)]
        return found

    def formats(self, kind: str) -> list[str]:
        able = {name: one for name, one in exporters().items() if one.why_not(kind) is None}
        return [name for name, one in able.items() if not self.quick or one.environment(kind) is None]

    def cell(self, kind: str, model: Path, name: str) -> dict[str, Any]:
        one = exporters()[name]
        print(f"  {model.name} → {name}", file=sys.stderr, flush=True)
        rows = next(path for path in model.iterdir() if path.name.startswith("rows."))
        row: dict[str, Any] = {"model": model.name, "exporter": name}
        python = self.python(one.environment(kind))
        began = time.perf_counter()
        try:
            params = {"exporter": name, "framework": kind, "target": "y"}
            made = self.run("engine.export.tasks:export", python, params, source=model, rows=rows)
        except EngineError as error:
            return {**row, "why_not": error.message}
        parity = made.value["parity"]
        size = (made.files / one.file_name).stat().st_size
        return {
            **row, "seconds": time.perf_counter() - began, "bytes": size, "rows": parity["rows"],
            "max_abs": parity["max_abs"], "agreement": parity["agreement"], "peak_mb": made.peak_memory_mb,
        }  # fmt: skip


def show(
    facts: dict[str, Any], starts: dict[str, float], upload: dict[str, float], cells: list[dict[str, Any]]
) -> None:
    print(f"{'model':16}{'format':14}{'seconds':>9}{'kB':>10}{'rows':>7}{'largest difference':>20}{'labels agree':>14}")
    for cell in cells:
        if "why_not" in cell:
            print(f"{cell['model']:16}{cell['exporter']:14}  {cell['why_not'][:100]}")
            continue
        agreement = "–" if cell["agreement"] is None else f"{cell['agreement']:.2%}"
        worst = "–" if cell["max_abs"] is None else f"{cell['max_abs']:.1e}"
        print(
            f"{cell['model']:16}{cell['exporter']:14}{cell['seconds']:>9.1f}{cell['bytes'] / 1e3:>10.1f}"
            f"{cell['rows']:>7}{worst:>20}{agreement:>14}"
        )
    over = starts["sandbox_s"] - starts["bare_s"]
    print(f"\nsandbox start over the bare interpreter: {over:.3f} s (asked ≤ 0.3)")
    print(f"{upload['mb']:.0f} MB of ONNX to ready: {upload['all_s']:.1f} s (asked ≤ 15)")
    print(", ".join(f"{name} {value}" for name, value in facts.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="the worker's own packages alone, under a minute")
    parser.add_argument("--environments", type=Path, metavar="DIR", help="where prepared environments are kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="slipway-bench-"))
    (folder / "code").mkdir()
    (folder / "code" / "nothing.py").write_text("def nothing(*, params, inputs, out):\n    return {}\n")
    try:
        bench = Bench(folder, options.environments or folder / "environments", options.quick)
        starts, upload, cells = bench.starts(), bench.upload(), bench.cells()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    facts = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    show(facts, starts, upload, cells)
    if options.json:
        given = {"bench": "export", "machine": facts, "starts": starts, "upload": upload, "cells": cells}
        options.json.write_text(json.dumps(given, indent=2) + "\n")


if __name__ == "__main__":
    main()
