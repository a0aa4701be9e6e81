"""The response cache: what counts as the same request, what is given back, how it is counted and let go."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T

from serving.cache import ResponseCache
from serving.document import EndpointSpec
from serving.table import Endpoint, Shared, Table
from tests.serving import models
from tests.serving.conftest import Server, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.models import rows
from tests.serving.test_limits import Serve, start
from tests.serving.test_upstream import metric


def key(feeds: dict[str, np.ndarray], deployment_: str = "1", asked: tuple[str, ...] = ("y",)) -> bytes:
    return ResponseCache.key(deployment_, list(asked), feeds)


BASE = {"x": np.zeros((2, 3), np.float32)}


@pytest.mark.parametrize(
    "other",
    [
        {"x": np.zeros((3, 2), np.float32)},
        {"x": np.zeros(6, np.float32)},
        {"x": np.zeros((2, 3), np.int32)},
        {"x": np.zeros((2, 3), np.float64)},
        {"z": np.zeros((2, 3), np.float32)},
        {"x": np.full((2, 3), -0.0, np.float32)},
        {"x": np.zeros((2, 3), np.float32), "z": np.zeros(0, np.float32)},
        {"x": np.zeros((0, 3), np.float32)},
        {"x": np.full((2, 3), "", object)},
        {},
    ],
)
def test_key_differs_when_anything_of_the_inputs_does(other: dict[str, np.ndarray]) -> None:
    assert key(other) != key(BASE)


def test_key_is_the_same_for_the_same_however_it_lies_in_memory() -> None:
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert key({"x": grid}) == key({"x": np.asfortranarray(grid)}) == key({"x": np.repeat(grid, 2, axis=1)[:, ::2]})
    two = {"a": grid, "b": grid}
    assert key(two) == key({"b": grid, "a": grid})
    assert key(BASE) != key(BASE, deployment_="2") and key(BASE) != key(BASE, asked=("y", "z"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a", "bc"], ["ab", "c"]),
        (["", "a"], ["a", ""]),
        (["1:a"], ["1", "a"]),
        (["a2:bc"], ["a", "bc"]),
        (["é"], ["e\u0301"]),
        (["a\x00"], ["a"]),
    ],
)
def test_strings_are_told_apart_by_where_they_end(one: list[str], other: list[str]) -> None:
    assert key({"x": np.array(one, object)}) != key({"x": np.array(other, object)})
    assert key({"x": np.array(one, object)}) == key({"x": np.array(list(one), object)})


def test_strings_take_the_room_they_need() -> None:
    cache = ResponseCache(80_000, 60)
    for number in range(200):
        cache.put(b"%d" % number, [np.array(["x" * 1000, "y"], object)])
    assert 0 < cache._bytes <= 80_000 and 20 < len(cache._held) < 80
    cache.put(b"huge", [np.array(["x" * 20_000], object)])
    assert cache.get(b"huge") is None


def test_bytes_add_up_whatever_many_threads_do() -> None:
    cache = ResponseCache(50_000, 60)

    def visit(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for number in rng.integers(0, 60, 400):
            found = cache.get(b"%d" % number)
            assert found is None or found[0][0] == number
            cache.put(b"%d" % number, [np.full(int(rng.integers(1, 1000)), number, np.float32)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(8)))
    assert cache._bytes == sum(size for _, size, _ in cache._held.values()) <= 50_000
    assert cache.hits + cache.misses == 8 * 400


def test_rows_of_a_shared_run_do_not_keep_the_whole_of_it() -> None:
    cache = ResponseCache(1 << 20, 60)
    whole = np.zeros((1000, 100), np.float32)
    cache.put(b"k", [whole[3:4]])
    (kept,) = cache.get(b"k") or [whole]
    assert kept.base is None and kept.nbytes == 400


def test_counters_stay_and_memory_goes_when_a_cache_is_changed_or_its_endpoint_taken_away() -> None:
    shared = Shared()

    def spec(name: str, cache: tuple[int, float] | None) -> EndpointSpec:
        return EndpointSpec(name, "open", frozenset(), (), {}, cache=cache)

    first = shared.cache(spec("m", (1 << 20, 60.0)))
    assert first is not None and shared.cache(spec("m", (1 << 20, 60.0))) is first
    first.put(b"k", [np.zeros(3)])
    assert first.get(b"k") and first.get(b"l") is None
    changed = shared.cache(spec("m", (2 << 20, 60.0)))
    assert changed is not None and changed is not first
    assert changed.get(b"k") is None
    shared.forget(Table(1, {"m": Endpoint(spec("m", (2 << 20, 60.0)), [])}))
    assert shared.cache(spec("m", (2 << 20, 60.0))) is changed
    shared.forget(Table(2, {}))
    assert not shared._caches
    assert shared.counted()["cache_hits"] == 1 and shared.counted()["cache_misses"] == 2


def ask(server: Server, *tensors: dict[str, Any], **more: Any) -> Any:
    answer = server.infer("m", *tensors, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_strings_and_empty_tensors_are_answered_from_memory_as_from_the_model(
    serve: Serve, control: ControlPlane, tmp_path: Any
) -> None:
    placed = deployment("1", control.add(models.identity(T.STRING, ["N", "M"])))
    server = start(serve, control, tmp_path, placed, cache={"mb": 1, "ttl_s": 600}).wait_ready("m")
    cases = [([1, 2], ["a", "bc"]), ([1, 2], ["ab", "c"]), ([2, 1], ["a", "bc"]), ([0, 5], []), ([5, 0], [])]
    for _ in range(3):
        for shape, data in cases:
            tensor = {"name": "x", "datatype": "BYTES", "shape": shape, "data": data}
            (output,) = ask(server, tensor)["outputs"]
            assert (output["shape"], output["data"]) == (shape, data)
    assert metric(server, "slipway_cache_misses_total") == len(cases)
    assert metric(server, "slipway_cache_hits_total") == 2 * len(cases)
    assert metric(server, "slipway_inferences_cached_total") == 2 * len(cases)


def test_id_and_form_of_the_answer_are_the_requests_own_when_it_comes_from_memory(
    serve: Serve, control: ControlPlane, tmp_path: Any
) -> None:
    placed = deployment("1", control.add(models.classifier()))
    server = start(serve, control, tmp_path, placed, cache={"mb": 1, "ttl_s": 600}).wait_ready("m")
    first = ask(server, rows(), id="a")
    second = ask(server, rows(), id="b")
    assert (first.pop("id"), second.pop("id")) == ("a", "b") and first == second
    binary = server.infer("m", rows(), outputs=[{"name": "scores", "parameters": {"binary_data": True}}])
    again = server.infer("m", rows(), outputs=[{"name": "scores", "parameters": {"binary_data": True}}])
    plain = ask(server, rows(), outputs=[{"name": "scores"}])
    assert binary.content == again.content
    scores = np.frombuffer(binary.content[int(binary.headers["inference-header-content-length"]) :], np.float32)
    assert np.allclose(plain["outputs"][0]["data"], scores)
    assert server.infer("m", {**rows(), "shape": [1, 5]}).status_code == 400
    # Classes are counted for what comes from memory, too.
    wait_until(
        lambda: (
            sum(
                count
                for report in list(control.accepted.values())
                for window in report["windows"]
                for count in window["outputs"].get("label", {}).values()
            )
            == 5
        )
    )


def test_another_artifact_under_the_same_id_gives_its_own_answers(
    serve: Serve, control: ControlPlane, tmp_path: Any
) -> None:
    cache = {"mb": 1, "ttl_s": 600}
    server = start(serve, control, tmp_path, deployment("1", control.add(models.constant(1))), cache=cache)
    server.wait_ready("m")
    assert ask(server, rows())["outputs"][0]["data"] == [1]
    generation = control.publish({**endpoint("m", deployment("1", control.add(models.constant(2)))), "cache": cache})
    wait_until(lambda: control.observed(generation))
    assert ask(server, rows())["outputs"][0]["data"] == [2]
    control.publish({**endpoint("m", deployment("1", control.add(models.constant(1)))), "cache": cache})
    wait_until(lambda: ask(server, rows())["outputs"][0]["data"] == [1])


def test_equal_requests_at_once_all_get_the_right_answer(serve: Serve, control: ControlPlane, tmp_path: Any) -> None:
    placed = deployment("1", control.add(models.identity(T.FLOAT, ["N", "M"])))
    server = start(serve, control, tmp_path, placed, cache={"mb": 1, "ttl_s": 600}).wait_ready("m")
    gate = threading.Barrier(8)

    def visit(_: int) -> None:
        gate.wait()
        for number in range(40):
            size = 20_000 if number % 7 == 0 else 2  # some are read in the pool
            tensor = {"name": "x", "datatype": "FP32", "shape": [1, size], "data": [float(number % 5)] * size}
            body = json.dumps({"inputs": [tensor], "id": str(number)})
            answer = server.client.post("/v2/models/m/infer", content=body).json()
            assert answer["id"] == str(number) and answer["outputs"][0]["data"] == tensor["data"]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(8)))


def test_cache_answers_the_same_inputs_and_only_those(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    placed = [
        deployment("1", control.add(models.classifier(1)), 50),
        deployment("2", control.add(models.classifier(2)), 50),
    ]
    server = start(serve, control, tmp_path, *placed, cache={"mb": 1, "ttl_s": 600}).wait_ready("m")

    def ask(version: str, row: dict, ident: str) -> Any:
        answer = server.client.post(
            f"/v2/models/m/versions/{version}/infer", json={"inputs": [row], "id": ident}
        ).json()
        assert answer["id"] == ident
        return answer["outputs"]

    first = ask("1", rows(), "a")
    assert ask("1", rows(), "b") == first
    assert ask("2", rows(), "c") != first
    assert ask("1", rows(2), "d") != first
    text = server.client.get("/metrics").text
    assert "slipway_cache_hits_total 1.0" in text and "slipway_cache_misses_total 3.0" in text


def test_cache_stays_within_its_bytes_and_forgets_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("serving.cache.time.monotonic", lambda: now)
    cache = ResponseCache(100_000, 10)
    for number in range(100):
        cache.put(b"%d" % number, [np.zeros(1000, np.float32)])
    assert cache._bytes <= 100_000
    assert cache.get(b"99") is not None and cache.get(b"0") is None
    cache.put(b"huge", [np.zeros(100_000, np.float32)])
    assert cache.get(b"huge") is None and cache.get(b"99") is not None
    now = 11
    assert cache.get(b"99") is None
    strings = np.array(["a", "bc"], dtype=object)
    other = np.array(["ab", "c"], dtype=object)
    assert cache.key("1", ["y"], {"x": strings}) != cache.key("1", ["y"], {"x": other})
    flat = np.zeros((2, 0), np.float32)
    assert cache.key("1", ["y"], {"x": flat}) != cache.key("1", ["y"], {"x": flat.T})
