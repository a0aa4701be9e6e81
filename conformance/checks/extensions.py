"""Triton's published extensions: classification, statistics, model configuration, model repository, sequence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from conformance.core import Failed, NotOffered, expect, extension
from conformance.target import Target, document, outputs, refused
from conformance.tensors import fp32

ROWS = [[1.0, 3.0, 2.0, 0.0], [9.0, 0.5, 4.0, 0.0]]


def offered(target: Target, name: str, answer: Any) -> None:
    """Raises NotOffered when the extension is not announced and its path is not there, or is not for everyone."""
    if answer.status_code in (401, 403):
        raise NotOffered(f"{answer.status_code} {answer.text[:80]}")
    if answer.status_code in (404, 405, 501) and name not in target.extensions():
        raise NotOffered(f"{name} is not announced, and its path answers {answer.status_code}")


def _classify(target: Target, count: Any, values: list[list[float]], **more: Any) -> Any:
    wanted = {"name": "scores", "parameters": {"classification": count, **more}}
    return target.infer("tiny", fp32("x", values), outputs=[wanted])


def _classes(target: Target) -> None:
    answer = _classify(target, 2, ROWS)
    if "classification" in target.extensions():
        return
    if answer.status_code != 200:
        raise NotOffered(f"not announced, and a request with it got {answer.status_code} {answer.text[:60]}")
    if outputs(answer)["scores"].dtype != object:
        raise NotOffered("not announced, and the parameter is passed over")


@extension(
    "classification.top", "classification: the k highest as value:index, of each row or where rows are no batch of all"
)
def top(target: Target) -> str:
    _classes(target)
    item = document(_classify(target, 2, ROWS))["outputs"][0]
    expect(item["datatype"] == "BYTES", f"{item}")
    found = [(float(v), int(i)) for v, i in (text.split(":")[:2] for text in np.ravel(item["data"]).tolist())]
    allowed = {(2, 2): [(3, 1), (2, 2), (9, 0), (4, 2)], (2,): [(9, 3), (4, 5)], (1, 2): [(9, 3), (4, 5)]}
    expect(allowed.get(tuple(item["shape"])) == found, f"{item}")
    return f"shape {item['shape']}: {item['data']}"


@extension("classification.more", "classification with more classes than there are is refused or gives all of them")
def more_classes(target: Target) -> str:
    _classes(target)
    answer = _classify(target, 50, ROWS)
    if answer.status_code != 200:
        return refused(answer)
    shape = document(answer)["outputs"][0]["shape"]
    expect(shape in ([2, 3], [6], [1, 6]), f"shape {shape}")
    return f"shape {shape}"


@extension("classification.binary", "classification as binary data")
def classification_binary(target: Target) -> str:
    _classes(target)
    target.offers_binary()
    found = outputs(_classify(target, 1, ROWS[:1], binary_data=True))["scores"].ravel().tolist()
    expect([text.split(b":")[1] for text in found] == [b"1"], f"{found}")
    return str(found)


@extension("classification.wrong", "classification with a count that is no positive number is refused with a 4xx")
def classification_wrong(target: Target) -> str:
    _classes(target)
    refused(_classify(target, "two", ROWS))
    return refused(_classify(target, -1, ROWS))


def _stats(target: Target, path: str) -> list[dict[str, Any]]:
    answer = target.get(path)
    offered(target, "statistics", answer)
    found = document(answer).get("model_stats")
    if not isinstance(found, list):
        raise Failed(f"model_stats is {found!r}")
    return found


def _of(target: Target, fixture: str) -> dict[str, Any]:
    found = _stats(target, target.path(fixture, "stats"))
    expect(len(found) == 1 and found[0].get("name") == target.model(fixture), f"{found}")
    return found[0]


@extension("statistics.model", "v2/models/M/stats has every field of the document")
def stats_model(target: Target) -> str:
    outputs(target.infer("vector", fp32("x", [1.0])))
    stat = _of(target, "vector")
    for key in ("last_inference", "inference_count", "execution_count"):
        expect(type(stat.get(key)) is int and stat[key] > 0, f"{key} is {stat.get(key)!r}")
    for key in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        part = stat.get("inference_stats", {}).get(key)
        expect(isinstance(part, dict) and {"count", "ns"} <= set(part), f"inference_stats.{key} is {part!r}")
    expect(isinstance(stat.get("batch_stats"), list), f"batch_stats is {stat.get('batch_stats')!r}")
    return f"{stat['inference_count']} inferences, last at {stat['last_inference']} ms"


@extension("statistics.counts", "success and fail count what was sent, fail being a model that fails")
def stats_counts(target: Target) -> str:
    good = {"name": "i", "shape": [1], "datatype": "INT64", "data": [1]}
    outputs(target.infer("fragile", good))
    before = _of(target, "fragile")["inference_stats"]
    for _ in range(3):
        outputs(target.infer("fragile", good))
    expect(target.infer("fragile", {**good, "data": [99]}).status_code >= 400, "the model did not fail")
    after = _of(target, "fragile")["inference_stats"]
    more = {key: after[key]["count"] - before[key]["count"] for key in ("success", "fail")}
    expect(more == {"success": 3, "fail": 1}, f"3 good and 1 failing request counted as {more}")
    expect(after["success"]["ns"] > before["success"]["ns"], "success.ns does not grow")
    return str(more)


@extension("statistics.batch", "inference_count counts the rows where max_batch_size says that rows are a batch")
def stats_batch(target: Target) -> str:
    outputs(target.infer("tiny", fp32("x", ROWS)))
    before = _of(target, "tiny")
    outputs(target.infer("tiny", fp32("x", [ROWS[0]] * 5)))
    after = _of(target, "tiny")
    rows = after["inference_count"] - before["inference_count"]
    runs = after["execution_count"] - before["execution_count"]
    answer = target.get(target.path("tiny", "config"))
    batches = answer.status_code == 200 and answer.json().get("max_batch_size", 0) > 0
    told = f"5 rows in one request: inference_count +{rows}, execution_count +{runs}, a batch: {batches}"
    expect((rows, runs) == (5 if batches else 1, 1), told)
    return told


@extension("statistics.version", "v2/models/M/versions/V/stats is of that version, M/stats of all versions")
def stats_version(target: Target) -> str:
    one = _stats(target, target.path("versions", "stats", "2"))
    expect([stat.get("version") for stat in one] == ["2"], f"{one}")
    every = _stats(target, target.path("versions", "stats"))
    found = {stat.get("version") for stat in every}
    expect({"1", "2", "10"} <= found, f"M/stats has versions {found}")
    return f"versions {sorted(map(str, found))}"


@extension("statistics.all", "v2/models/stats is of every model")
def stats_all(target: Target) -> str:
    target.model("tiny")
    found = {stat.get("name") for stat in _stats(target, "/v2/models/stats")}
    expect({target.model("tiny"), target.model("vector")} <= found, f"{len(found)} models")
    return f"{len(found)} models"


@extension("statistics.unknown", "statistics of an unknown model or version are refused with a 4xx")
def stats_unknown(target: Target) -> str:
    _stats(target, target.path("tiny", "stats"))
    refused(target.get(target.path("tiny", "stats", "987654")))
    return refused(target.get("/v2/models/no-such-model/stats"))


def _config(target: Target, path: str) -> dict[str, Any]:
    answer = target.get(path)
    offered(target, "model_configuration", answer)
    body = document(answer)
    if not isinstance(body, dict):
        raise Failed(f"body {body!r}")
    return body


@extension("configuration.model", "v2/models/M/config has name, platform or backend, input and output of ModelConfig")
def config(target: Target) -> str:
    found = _config(target, target.path("tiny", "config"))
    expect(found.get("name") == target.model("tiny"), f"name is {found.get('name')!r}")
    expect(found.get("platform") or found.get("backend"), "neither platform nor backend")
    kinds = {t["name"]: t["data_type"] for side in ("input", "output") for t in found.get(side, [])}
    expect(kinds == {"x": "TYPE_FP32", "label": "TYPE_INT64", "scores": "TYPE_FP32"}, f"data types {kinds}")
    expect(all("dims" in t for t in found["input"]), f"input {found['input']}")
    return f"max_batch_size {found.get('max_batch_size')}, x {found['input'][0]['dims']}"


@extension("configuration.version", "v2/models/M/versions/V/config answers, for an unknown version with a 4xx")
def config_version(target: Target) -> str:
    _config(target, target.path("versions", "config", "2"))
    return refused(target.get(target.path("versions", "config", "987654")))


def _index(target: Target, body: str) -> list[dict[str, Any]]:
    answer = target.client.post("/v2/repository/index", content=body)
    offered(target, "model_repository", answer)
    found = document(answer)
    if not isinstance(found, list):
        raise Failed(f"body {found!r}")
    return found


@extension("repository.index", "v2/repository/index lists every model with version, state and reason")
def index(target: Target) -> str:
    found = _index(target, "{}")
    entries = [entry for entry in found if entry.get("name") == target.model("tiny")]
    expect(entries and entries[0].get("state") == "READY", f"{entries}")
    many = {entry.get("version") for entry in found if entry.get("name") == target.model("versions")}
    expect({"1", "2", "10"} <= many, f"versions {many}")
    return f"{len(found)} entries"


@extension("repository.index.ready", 'the index lists ready models alone when asked with {"ready": true}')
def index_ready(target: Target) -> str:
    found = _index(target, json.dumps({"ready": True}))
    expect(found and all(entry.get("state") == "READY" for entry in found), f"{found[:2]}")
    return f"{len(found)} ready of {len(_index(target, '{}'))}"


@extension("repository.index.wrong", "an index request that is no JSON object is refused with a 4xx")
def index_wrong(target: Target) -> str:
    _index(target, "{}")
    return refused(target.client.post("/v2/repository/index", content="[1"))


@extension("repository.load-unknown", "load of an unknown model is refused with an error text")
def load_unknown(target: Target) -> str:
    answer = target.client.post("/v2/repository/models/no-such-model/load", content="{}")
    offered(target, "model_repository(load)", answer)
    return refused(answer)


@extension("sequence.parameters", "sequence_id (number or text), sequence_start and sequence_end are accepted")
def sequence_parameters(target: Target) -> str:
    for name in (42, "e333c95a-07fc-42d2-ab16-033b1a566ed5"):
        asked = {"sequence_id": name, "sequence_start": True, "sequence_end": True}
        document(target.infer("vector", fp32("x", [1.0]), parameters=asked))
    return "200 for 42 and for a UUID"


@extension("sequence.state", "with sequence announced, the server keeps state_out for the next state_in")
def sequence_state(target: Target) -> str:
    if not any(name.startswith("sequence") for name in target.extensions()):
        raise NotOffered("sequence is not announced")
    sums = []
    for place in range(3):
        asked = {"sequence_id": 77, "sequence_start": place == 0, "sequence_end": place == 2}
        answer = target.infer("state", fp32("x", [1.0 + place]), parameters=asked)
        if not place and answer.status_code == 400:
            raise NotOffered(f"announced, but not for this model: {answer.text[:90]}")
        sums.append(float(outputs(answer)["y"][0]))
    expect(sums == [1, 3, 6], f"running sums of 1, 2, 3: {sums}")
    return str(sums)
