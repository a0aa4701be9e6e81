"""The sandboxed tasks that measure a model: quality, latency, throughput, size, memory."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.evaluate.subject import Subject, ratio

_CALLS = 64


def measure(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Measures inputs["model"] (ONNX) on inputs["rows"], beside inputs["reference"] (ONNX) where given.

    Without rows the speed is measured on invented ones, and there are no quality metrics.

    params: task ("tabular-classification"), threads (1), rounds (5), batch (1), target ("target"),
    labels (class names in score order, optional), quality (True; False where the answers are judged already: no
    metrics, and rows are only run as calls), keep (False; True: writes the model's answers as answers.npz and tells
    in "kept" whether it did). Each model has a process of its own, a fresh one for each round where it loads quickly;
    rounds of about 0.2 s each alternate between the two, so that noise of the machine hits both alike.

    {"metrics", "latency_ms": {"p50", "p95", "p99"} of one call of `batch` rows, "throughput" (rows/s),
    "size_bytes", "peak_memory_mb" (of the process that ran it), "rows", "batch", "profile"} and with a
    reference "reference": {"metrics", "latency_ms", "peak_memory_mb"}, and "ratio_to_reference": the median over
    rounds of (the model's median latency / the reference's), below 1 is faster, between "ratio_low" and "ratio_high"
    with 95 % confidence. EngineError(code="not-finite") as in `judge`.
    """
    from engine.evaluate import outputs, quality, rows

    threads = _whole(params, "threads", 1, 1, 256)
    rounds = _whole(params, "rounds", 5, 1, 200)
    batch = _whole(params, "batch", 1, 1, 4096)
    task = str(params.get("task", "tabular-classification"))
    if "rows" in inputs:
        data = rows.load(inputs["rows"], str(params.get("target") or "target"))
    else:
        data, task = _invented(inputs["model"]), ""
    names = [name for name in ("model", "reference") if name in inputs]
    given = {name: answers(inputs[name], data) for name in names} if params.get("quality", True) else {}
    if "reference" in given:
        _check_finite(given["model"], given["reference"], len(data))
    metrics: dict[str, dict[str, float]] = {name: {} for name in names}
    metrics |= {name: quality.metrics(task, found, data.y, params.get("labels")) for name, found in given.items()}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subjects: dict[str, Subject] = {}
        for name in names:
            size = save_calls(inputs[name], data, batch, folder / f"{name}.npz")
            subjects[name] = stack.enter_context(
                contextlib.closing(Subject(inputs[name], folder / f"{name}.npz", threads))
            )
        order = list(subjects.values())
        for number in range(rounds):
            for subject in order if number % 2 == 0 else reversed(order):
                subject.round()
    model = subjects["model"]
    result: dict[str, Any] = {
        "metrics": metrics["model"],
        "latency_ms": model.latency(),
        "throughput": size * len(model.times()) / sum(model.times()),
        "size_bytes": inputs["model"].stat().st_size,
        "peak_memory_mb": model.peak_memory_mb,
        "rows": len(data),
        "batch": size,
        "profile": profile(threads),
    }
    if params.get("keep"):
        result["kept"] = bool(given) and outputs.save(given["model"], out / "answers.npz")
    if "reference" in subjects:
        reference = subjects["reference"]
        median, low, high = ratio(model, reference)
        result |= {"ratio_to_reference": median, "ratio_low": low, "ratio_high": high}
        result["reference"] = {
            "metrics": metrics["reference"],
            "latency_ms": reference.latency(),
            "peak_memory_mb": reference.peak_memory_mb,
        }
    return result


def judge(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Quality of inputs["model"] beside inputs["reference"] on inputs["rows"]: what `paired.judge` gives, and
    "metrics": {"model", "reference"}, as of `measure`.

    params: task, target, labels, seed. inputs["groups"], where given, says which group each row is of;
    inputs["answers"] are the reference's, kept from before. Without them they are made; with params["keep"] they are
    written as answers.npz: {"kept": whether they were}. EngineError(code="not-finite") for a model that answers with
    NaN or infinity where the reference does not.
    """
    from engine.evaluate import groups, outputs, paired, quality, rows

    task, labels = str(params.get("task") or ""), params.get("labels")
    data = rows.load(inputs["rows"], str(params.get("target") or "target"))
    known = inputs.get("answers")
    reference = outputs.read(known, len(data)) if known else answers(inputs["reference"], data)
    kept = bool(params.get("keep")) and outputs.save(reference, out / "answers.npz")
    model = answers(inputs["model"], data)
    _check_finite(model, reference, len(data))
    parts = groups.read(inputs["groups"]) if "groups" in inputs else {}
    judged = paired.judge(task, reference, model, data.y, labels, int(params.get("seed") or 0), parts)
    both = {"model": model, "reference": reference} if data.y is not None else {}
    metrics = {name: quality.metrics(task, found, data.y, labels) for name, found in both.items()}
    return {**judged, "metrics": metrics, "kept": kept}


def _check_finite(model: Any, reference: Any, rows: int) -> None:
    """EngineError(code="not-finite") where more answers than the reference's are NaN or infinite."""
    import numpy as np

    broken, before = (
        int(np.sum(~np.isfinite(outputs.scores).all(axis=1))) if outputs.scores is not None else 0
        for outputs in (model, reference)
    )
    if broken > before:
        raise EngineError(f"It answers {broken} of {rows} rows with numbers that are not finite.", code="not-finite")


def answers(model: Path, data: Any) -> Any:
    """Outputs of an ONNX file for all rows."""
    from engine.evaluate import outputs
    from engine.formats import signature
    from engine.scan import onnx_run, onnx_structure

    content = model.read_bytes()
    return outputs.run_all(onnx_run.session(content), signature.of_onnx(onnx_structure.parse(content)), data)


def save_calls(model: Path, data: Any, batch: int, target: Path) -> int:
    """Writes the inputs of up to 64 calls for `Subject` to an npz file; the rows of each call: `batch`, or the model's
    own fixed number. EngineError(field="rows") for too few."""
    import numpy as np

    from engine.evaluate import outputs
    from engine.formats import signature
    from engine.scan import onnx_structure

    described = signature.of_onnx(onnx_structure.parse(model.read_bytes()))
    arrays = outputs.feeds(described, data)
    first = described["inputs"][0]["shape"]
    size = int(first[0]) if first and first[0] > 0 else min(batch, len(data))
    if len(data) < size:
        raise EngineError(f"Measuring needs at least {size} rows.", field="rows", code="rows")
    calls = {}
    for place, at in enumerate(range(0, min(len(data) - size + 1, _CALLS * size), size)):
        for name, values in arrays.items():
            part = values[at : at + size]
            calls[f"{place}:{name}"] = part.astype(str) if part.dtype == object else part
    np.savez(target, **calls)
    return size


def _invented(model: Path) -> Any:
    """Rows that fit a model's signature and mean nothing."""
    from engine.export.example import synthesize
    from engine.formats import signature
    from engine.scan import onnx_structure

    return synthesize(signature.of_onnx(onnx_structure.parse(model.read_bytes())))


def profile(threads: int) -> dict[str, Any]:
    """What the figures hold for."""
    import onnxruntime

    return {**hardware(), "threads": threads, "onnxruntime": onnxruntime.__version__}


def hardware() -> dict[str, Any]:
    """The machine's part of a profile: {"cpu", "cores", "machine"}."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return {"cpu": model, "cores": os.cpu_count(), "machine": platform.machine()}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _whole(params: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise EngineError(f"{name} must be a whole number from {least} to {most}.", field=name, code="params")
    return value
