"""Models with what runtimes stumble over, through REST."""

from __future__ import annotations

import json
import math
import threading
import time
from typing import Any

import numpy as np

from conformance.core import Failed, expect, extension
from conformance.target import Target, document, outputs, refused
from conformance.tensors import as_input, fp32


def _integer(name: str, value: Any) -> dict[str, Any]:
    return as_input(name, "INT64", np.array(value, np.int64))


@extension("models.zero-size", "a tensor with a dimension of 0 goes in and comes back")
def zero_size(target: Target) -> str:
    tensor = {"name": "x", "shape": [0, 4], "datatype": "FP32", "data": []}
    found = outputs(target.infer("empty", tensor))
    expect(found["y"].shape == (0, 4) and float(found["total"]) == 0, f"{found}")
    return "y [0,4], total 0"


@extension("models.scalar", "a scalar has the shape [] and one value")
def scalar(target: Target) -> str:
    item = document(target.infer("scalar", {"name": "x", "shape": [], "datatype": "FP32", "data": [2.5]}))["outputs"][0]
    expect(item["shape"] == [] and item["data"] in ([5.0], 5.0), f"{item}")
    return str(item["data"])


@extension("models.scalar.metadata", "the metadata of a scalar has the shape []")
def scalar_metadata(target: Target) -> str:
    shape = document(target.get(target.path("scalar")))["inputs"][0]["shape"]
    expect(shape == [], f"shape {shape}")
    return "[]"


@extension("models.if", "a model with If takes either branch")
def branches(target: Target) -> str:
    found = []
    for flag in (True, False):
        tensor = as_input("flag", "BOOL", np.array([flag]))
        found.append(outputs(target.infer("branches", tensor, fp32("x", [5.0, 6.0])))["y"].tolist())
    expect(found == [[6, 7], [4, 5]], f"{found}")
    return str(found)


@extension("models.loop", "a model with Loop runs as often as its input says, also not at all")
def loop(target: Target) -> str:
    shapes = []
    for rounds in (3, 0):
        found = outputs(target.infer("loop", _integer("n", rounds), fp32("x", [1.0, 2.0])))
        expect(found["y"].tolist() == [1.0 * 2**rounds, 2.0 * 2**rounds], f"{found}")
        expect(found["steps"].tolist() == list(range(rounds)), f"{found}")
        shapes.append(found["steps"].shape)
    return f"steps {shapes}"


@extension("models.state", "a model whose state goes in and out is driven by the caller")
def state(target: Target) -> str:
    held, sums = 0.0, []
    for value in (1.0, 2.0, 3.0):
        found = outputs(target.infer("state", fp32("x", [value]), fp32("state_in", [held])))
        held = float(found["state_out"][0])
        sums.append(held)
    expect(sums == [1, 3, 6], f"{sums}")
    return str(sums)


@extension("models.default-input", "an input with a default may be left out")
def default_left_out(target: Target) -> str:
    found = outputs(target.infer("default", fp32("x", [1.0, 3.0])))["y"].tolist()
    expect(found == [2, 6], f"{found}")
    return str(found)


@extension("models.default-input.given", "an input with a default may be given")
def default_given(target: Target) -> str:
    found = outputs(target.infer("default", fp32("x", [1.0, 3.0]), fp32("scale", [10.0])))["y"].tolist()
    expect(found == [10, 30], f"{found}")
    return str(found)


@extension("models.optional-input", "an optional(tensor) input may be left out")
def optional_left_out(target: Target) -> str:
    found = outputs(target.infer("optional", fp32("x", [1.0, 3.0])))["y"].tolist()
    expect(found == [1, 3], f"{found}")
    return str(found)


@extension("models.optional-input.given", "an optional(tensor) input may be given as its tensor")
def optional_given(target: Target) -> str:
    found = outputs(target.infer("optional", fp32("x", [1.0, 3.0]), fp32("extra", [1.0, 1.0])))["y"].tolist()
    expect(found == [2, 4], f"{found}")
    return str(found)


@extension("models.zipmap.label", "a classifier with ZipMap answers with its label")
def zipmap_label(target: Target) -> str:
    found = outputs(target.infer("zipmap", fp32("x", [[0.0, 5.0, 0.0], [9.0, 0.0, 0.0]])))["label"].tolist()
    expect(found == [8, 7], f"{found}")
    return str(found)


@extension("models.zipmap.probabilities", "its probabilities come as [N, classes], or as [N] BYTES of JSON by class")
def zipmap_probabilities(target: Target) -> str:
    found = outputs(target.infer("zipmap", fp32("x", [[0.0, 5.0, 0.0], [9.0, 0.0, 0.0]])))
    shapes = {name: array.shape for name, array in found.items()}
    array = found.get("probabilities")
    if array is None:
        raise Failed(f"outputs {shapes}")
    if array.dtype == object and array.shape == (2,):
        rows = [json.loads(text) for text in array.tolist()]
        expect(all(set(row) == {"7", "8", "9"} for row in rows), f"classes {rows}")
        array = np.array([[row[key] for key in ("7", "8", "9")] for row in rows])
    expect(array.shape == (2, 3) and array.dtype.kind == "f", f"outputs {shapes}")
    expect(array.argmax(axis=1).tolist() == [1, 0], f"{array.tolist()}")
    return f"{shapes}, {'of JSON' if shapes['probabilities'] == (2,) else 'numbers'}"


@extension("models.sequence-output", "a sequence output does not stand in the way of the tensors beside it")
def sequence_count(target: Target) -> str:
    found = outputs(target.infer("sequence", fp32("x", [1.0, 2.0, 3.0]), outputs=[{"name": "count"}]))["count"]
    expect(int(found) == 3, f"{found}")
    return "count 3"


@extension("models.sequence-output.values", "the tensors of a sequence output are returned under its name")
def sequence_values(target: Target) -> str:
    found = outputs(target.infer("sequence", fp32("x", [1.0, 2.0, 3.0])))
    parts = {name: array for name, array in found.items() if name.startswith("parts")}
    values = [float(v) for array in parts.values() for v in array.ravel()]
    expect(values == [1, 2, 3], f"outputs { {name: array.shape for name, array in found.items()} }")
    return str({name: array.shape for name, array in parts.items()})


@extension("models.metadata-agrees", "every output of an answer is in the metadata with its datatype, and the reverse")
def metadata_agrees(target: Target) -> str:
    for fixture in ("tiny", "zipmap", "sequence"):
        rows = [1.0, 2.0] if fixture == "sequence" else [[1.0, 0.0, 0.0, 0.0][: 4 if fixture == "tiny" else 3]]
        told = {t["name"]: t["datatype"] for t in document(target.get(target.path(fixture)))["outputs"]}
        body = document(target.infer(fixture, fp32("x", rows)))
        got = {item["name"]: item["datatype"] for item in body["outputs"]}
        expect(told == got, f"{fixture}: metadata {told}, answer {got}")
    return "tiny, zipmap, sequence"


@extension("models.external-data", "a model with its weights in a file of its own folder is served")
def external(target: Target) -> str:
    found = outputs(target.infer("external", fp32("x", [1.0, 2.0])))["y"].tolist()
    expect(found == [6, 7], f"{found}")
    return str(found)


@extension("models.failing", "a model that fails on a value gives an error object, and serves the next request")
def failing(target: Target) -> str:
    answer = target.infer("fragile", _integer("i", [99]))
    text = answer.text
    expect(answer.status_code >= 400, f"{answer.status_code} {text[:80]}")
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        raise Failed(f"{answer.status_code}, but no error object: {text[:80]}") from None
    found = outputs(target.infer("fragile", _integer("i", [1])))["y"].tolist()
    expect(found == [20], f"{found}")
    return f"{answer.status_code} {error}"


@extension("models.slow", "quick requests are answered while a slow one runs")
def slow(target: Target) -> str:
    spent: list[float] = []

    def ask() -> None:
        start = time.perf_counter()
        outputs(target.infer("slow", fp32("x", [1.0])))
        spent.append(time.perf_counter() - start)

    target.model("slow")
    target.model("vector")
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    quick = math.inf
    while any(thread.is_alive() for thread in threads):
        start = time.perf_counter()
        outputs(target.infer("vector", fp32("x", [1.0])))
        quick = min(quick, time.perf_counter() - start)
    expect(len(spent) == 3, "a slow request failed")
    expect(quick < min(spent), f"the quickest took {quick * 1000:.1f} ms beside a slow one of {min(spent) * 1000:.0f}")
    return f"quickest {quick * 1000:.1f} ms beside slow ones of {min(spent) * 1000:.0f} ms"


@extension("models.free-rank", "free dimensions do not mean free rank: a third one is refused with a 4xx")
def free_rank(target: Target) -> str:
    tensor = {"name": "x", "shape": [2, 2, 1], "datatype": "FP32", "data": [1, 2, 3, 4]}
    return refused(target.infer("id-fp32", tensor))
