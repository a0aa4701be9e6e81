"""The sandboxed task that measures a model: quality, latency, throughput, size, memory."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from engine.errors import EngineError

_ROUND_SECONDS = 0.3
_MOST_CALLS = 2_000
_WARM_UP = 5


def measure(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Measures inputs["model"] (ONNX) on inputs["rows"], beside inputs["reference"] (ONNX) where given.

    Without rows the speed is measured on invented ones, and there are no quality metrics.

    params: task ("tabular-classification"), threads (1), rounds (5), batch (1), target ("target"),
    labels (class names in score order, optional). Rounds of about 0.3 s each alternate between the two models,
    so that noise of the machine hits both alike.

    {"metrics", "latency_ms": {"p50", "p95", "p99"} of one call of `batch` rows, "throughput" (rows/s),
    "size_bytes", "peak_memory_mb" (of the measuring process), "rows", "batch", "profile"} and with a
    reference "reference": {"metrics", "latency_ms"} and "ratio_to_reference": the median over rounds of
    (the model's median latency / the reference's), below 1 is faster.
    """
    from engine.evaluate import quality, rows

    threads = _whole(params, "threads", 1, 1, 256)
    rounds = _whole(params, "rounds", 5, 1, 200)
    batch = _whole(params, "batch", 1, 1, 4096)
    task = str(params.get("task", "tabular-classification"))
    if "rows" in inputs:
        data = rows.load(inputs["rows"], str(params.get("target") or "target"))
    else:
        data, task = _invented(inputs["model"]), ""
    subjects = {name: _Subject(inputs[name], threads, data, batch) for name in ("model", "reference") if name in inputs}
    metrics = {
        name: quality.metrics(task, subject.outputs(), data.y, params.get("labels"))
        for name, subject in subjects.items()
    }
    for number in range(rounds):
        order = list(subjects.values())
        for subject in order if number % 2 == 0 else reversed(order):
            subject.round()
    model = subjects["model"]
    result: dict[str, Any] = {
        "metrics": metrics["model"],
        "latency_ms": model.latency(),
        "throughput": model.batch * len(model.times()) / sum(model.times()),
        "size_bytes": inputs["model"].stat().st_size,
        "peak_memory_mb": _peak_memory_mb(),
        "rows": len(data),
        "batch": model.batch,
        "profile": profile(threads),
    }
    if "reference" in subjects:
        import numpy as np

        reference = subjects["reference"]
        pairs = zip(model.rounds, reference.rounds, strict=True)
        result["ratio_to_reference"] = float(np.median([np.median(a) / np.median(b) for a, b in pairs]))
        result["reference"] = {"metrics": metrics["reference"], "latency_ms": reference.latency()}
    return result


def _invented(model: Path) -> Any:
    """Rows that fit a model's signature and mean nothing."""
    from engine.export.example import synthesize
    from engine.formats import signature
    from engine.scan import onnx_structure

    return synthesize(signature.of_onnx(onnx_structure.parse(model.read_bytes())))


class _Subject:
    """One loaded model and the times of its calls."""

    def __init__(self, path: Path, threads: int, data: Any, batch: int) -> None:
        from engine.evaluate import outputs
        from engine.formats import signature
        from engine.scan import onnx_run, onnx_structure

        content = path.read_bytes()
        self.signature = signature.of_onnx(onnx_structure.parse(content))
        self.session = onnx_run.session(content, threads)
        self.data = data
        arrays = outputs.feeds(self.signature, data)
        first = self.signature["inputs"][0]["shape"]
        self.batch = first[0] if first and first[0] > 0 else min(batch, len(data))
        if len(data) < self.batch:
            raise EngineError(f"Measuring needs at least {self.batch} rows.", field="rows", code="rows")
        starts = range(0, min(len(data) - self.batch + 1, 64 * self.batch), self.batch)
        self.feeds = [{name: values[at : at + self.batch] for name, values in arrays.items()} for at in starts]
        self.rounds: list[list[float]] = []
        for number in range(_WARM_UP):
            self.session.run(None, self.feeds[number % len(self.feeds)])

    def outputs(self) -> Any:
        from engine.evaluate import outputs

        return outputs.run_all(self.session, self.signature, self.data)

    def round(self) -> None:
        times: list[float] = []
        end = time.perf_counter() + _ROUND_SECONDS
        while len(times) < _MOST_CALLS and (time.perf_counter() < end or len(times) < 3):
            feed = self.feeds[len(times) % len(self.feeds)]
            started = time.perf_counter()
            self.session.run(None, feed)
            times.append(time.perf_counter() - started)
        self.rounds.append(times)

    def times(self) -> list[float]:
        return [each for part in self.rounds for each in part]

    def latency(self) -> dict[str, float]:
        """Milliseconds of one call."""
        import numpy as np

        p50, p95, p99 = np.percentile(self.times(), [50, 95, 99]) * 1000
        return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}


def profile(threads: int) -> dict[str, Any]:
    """What the figures hold for."""
    import onnxruntime

    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": threads,
        "onnxruntime": onnxruntime.__version__,
        "machine": platform.machine(),
    }


def _peak_memory_mb() -> float:
    peak = next(line for line in _lines("/proc/self/status") if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _whole(params: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise EngineError(f"{name} must be a whole number from {least} to {most}.", field=name, code="params")
    return value
