"""Calls that share runs: whoever waits goes together, nobody waits for company, each gets its own rows."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T

from serving.batching import Evidence
from serving.call import Call
from serving.compute import Completions, Compute, Cores
from serving.dataplane import Dataplane
from serving.lane import Lane
from serving.metrics import Snapshots
from serving.model import Model
from serving.options import parse_options
from serving.protocol.errors import ServingError
from serving.runtime import Runtime
from serving.table import Endpoint, Table
from tests.serving import models
from tests.serving.inside import endpoint_of, model_of, request

ON = Evidence(((256, 1.0),), "on: by hand")


def batched(data: bytes, **spec: Any) -> Endpoint:
    """An endpoint whose model runs up to 256 rows together, as if measuring had said so."""
    model = model_of(data)
    model.batching = ON
    return endpoint_of(model, **spec)


class Loop:
    """Completions without an event loop; keeps what came back, and lets a test wait for it."""

    def __init__(self, cores: int = 2) -> None:
        self.done: list[Call] = []
        self._there = threading.Condition()
        self.completions = Completions(self, self._take)  # type: ignore[arg-type]
        self.compute = Compute(Cores(cores, 1), 0)

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        with self._there:
            callback()
            self._there.notify_all()

    def _take(self, call: Call) -> None:
        self.done.append(call)

    def wait(self, count: int) -> list[Call]:
        with self._there:
            assert self._there.wait_for(lambda: len(self.done) >= count, 30), f"{len(self.done)} of {count} came back"
        return self.done


class Slow:
    """Stands before a model's run: counts, and holds runs back while the gate is shut."""

    def __init__(self, model: Model) -> None:
        self.runs: list[int] = []
        self.running = self.most = 0
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._run = model.run
        model.run = self.run  # type: ignore[method-assign]

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.runs.append(len(next(iter(feeds.values()))))
        self.begun.release()
        assert self.open.wait(30)
        try:
            return self._run(names, feeds)
        finally:
            with self._lock:
                self.running -= 1


def tensor(values: Any, name: str = "x", datatype: str = "FP32") -> dict[str, Any]:
    array = np.asarray(values)
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}


def decoded(endpoint: Endpoint, *tensors: dict[str, Any]) -> Call:
    call = request(endpoint, json.dumps({"inputs": list(tensors)}).encode())
    call.decode()
    return call


def data_of(call: Call) -> list[Any]:
    assert call.error is None, call.error
    found: list[Any] = json.loads(call.answer.body)["outputs"][0]["data"]
    return found


def test_lone_call_runs_at_once_and_alone() -> None:
    endpoint, loop = batched(models.identity(T.FLOAT, ["N", 2])), Loop()
    lane = Lane(loop.compute, loop.completions)
    slow = Slow(endpoint.live[0].model)
    for number in range(5):
        lane.add(decoded(endpoint, tensor([[number, 1.0]])))
        assert data_of(loop.wait(number + 1)[-1]) == [number, 1.0]
    assert slow.runs == [1] * 5 and all(call.batch == 1 for call in loop.done)


def test_calls_that_wait_share_one_run_and_get_their_own_rows() -> None:
    endpoint, loop = batched(models.identity(T.FLOAT, ["N", 2])), Loop(1)
    lane, slow = Lane(loop.compute, loop.completions), Slow(endpoint.live[0].model)
    slow.open.clear()
    calls = [decoded(endpoint, tensor(np.full((1 + i % 3, 2), float(i)))) for i in range(20)]
    lane.add(calls[0])
    assert slow.begun.acquire(timeout=30)
    for call in calls[1:]:
        lane.add(call)
    slow.open.set()
    loop.wait(20)
    assert slow.runs == [1, sum(1 + i % 3 for i in range(1, 20))]
    for i, call in enumerate(calls):
        assert data_of(call) == [float(i)] * (2 * (1 + i % 3))
    assert sorted(call.batch for call in calls) == [0] * 18 + [1, 19]


def test_limit_of_rows_is_kept_and_a_larger_call_runs_alone() -> None:
    endpoint, loop = batched(models.identity(T.FLOAT, ["N", 2])), Loop(1)
    endpoint.live[0].batch_most = 8
    lane, slow = Lane(loop.compute, loop.completions), Slow(endpoint.live[0].model)
    slow.open.clear()
    sizes = [1, 3, 3, 3, 20, 2, 7, 1, 8, 1]
    calls = [decoded(endpoint, tensor(np.full((size, 2), float(i)))) for i, size in enumerate(sizes)]
    lane.add(calls[0])
    assert slow.begun.acquire(timeout=30)
    for call in calls[1:]:
        lane.add(call)
    slow.open.set()
    loop.wait(len(calls))
    # 3 and 3; 3, as 20 goes alone and behind what came before it; 2, as 2 and 7 are too many; 7 and 1; 8; 1.
    assert slow.runs == [1, 6, 3, 20, 2, 8, 8, 1]
    for i, (call, size) in enumerate(zip(calls, sizes, strict=True)):
        assert data_of(call) == [float(i)] * (2 * size)


def test_bad_request_in_a_shared_run_fails_alone() -> None:
    endpoint, loop = batched(models.lookup()), Loop(1)
    lane, slow = Lane(loop.compute, loop.completions), Slow(endpoint.live[0].model)
    slow.open.clear()
    indices = [0, 1, 2, 99, 1, -50, 0]
    calls = [decoded(endpoint, tensor([i], "i", "INT64")) for i in indices]
    lane.add(calls[0])
    assert slow.begun.acquire(timeout=30)
    for call in calls[1:]:
        lane.add(call)
    slow.open.set()
    loop.wait(len(calls))
    for index, call in zip(indices, calls, strict=True):
        if index in (0, 1, 2):
            assert data_of(call) == [10.0 * (index + 1)]
        else:
            assert call.error is not None and call.error.status == 500 and "reference" in call.error.text


def test_calls_of_other_shapes_outputs_or_models_never_share() -> None:
    endpoint, loop = batched(models.identity(T.FLOAT, ["N", "M"])), Loop(1)
    lane, slow = Lane(loop.compute, loop.completions), Slow(endpoint.live[0].model)
    other = batched(models.identity(T.FLOAT, ["N", "M"]))
    slow.open.clear()
    calls = [decoded(endpoint, tensor(np.full((2, 1 + i % 2), float(i)))) for i in range(9)]
    calls.append(decoded(other, tensor(np.full((2, 1), 9.0))))
    lane.add(calls[0])
    assert slow.begun.acquire(timeout=30)
    for call in calls[1:]:
        lane.add(call)
    slow.open.set()
    loop.wait(len(calls))
    assert slow.runs == [2] * 9
    for i, call in enumerate(calls):
        assert data_of(call) == [float(i)] * (2 * (1 + (i % 2 if i < 9 else 0)))


def test_inputs_that_do_not_fit_each_other_are_refused_though_together_they_would() -> None:
    endpoint, loop = batched(models.two_inputs()), Loop(1)
    lane, slow = Lane(loop.compute, loop.completions), Slow(endpoint.live[0].model)
    slow.open.clear()
    first = decoded(endpoint, tensor([1.0], "a"), tensor([1.0], "b"))
    wrong = [
        decoded(endpoint, tensor([1.0] * a, "a"), tensor([1.0] * b, "b")) for a, b in ((2, 3), (3, 2), (2, 3), (3, 2))
    ]
    right = [decoded(endpoint, tensor([1.0, 2.0], "a"), tensor([i, i], "b")) for i in (1.0, 2.0)]
    lane.add(first)
    assert slow.begun.acquire(timeout=30)
    for call in (*wrong, *right):
        lane.add(call)
    slow.open.set()
    loop.wait(7)
    assert all(call.error is not None and call.answer is None for call in wrong)
    assert [data_of(call) for call in right] == [[2.0, 3.0], [3.0, 4.0]]


def test_rows_come_back_to_their_callers_under_many_threads() -> None:
    endpoint, loop = batched(models.identity(T.FLOAT, ["N", 2])), Loop(4)
    lane, slow = Lane(loop.compute, loop.completions), Slow(endpoint.live[0].model)

    def visit(number: int) -> list[tuple[Call, list[float]]]:
        rng, made = np.random.default_rng(number), []
        for turn in range(20):
            values = np.full((int(rng.integers(1, 5)), 2), number * 100.0 + turn)
            call = decoded(endpoint, tensor(values))
            lane.add(call)
            made.append((call, values.ravel().tolist()))
        return made

    with ThreadPoolExecutor(64) as pool:
        made = [pair for part in pool.map(visit, range(64)) for pair in part]
    loop.wait(64 * 20)
    assert all(data_of(call) == wanted for call, wanted in made)
    assert sum(call.batch for call, _ in made) == 64 * 20 and len(slow.runs) == sum(call.batch > 0 for call, _ in made)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_runs_than_the_limit_go_on_and_none_is_forgotten(most: int) -> None:
    endpoint, loop = batched(models.identity(T.FLOAT, ["N", 2])), Loop(4)
    endpoint.live[0].batch_most = 1
    lane, slow = Lane(loop.compute, loop.completions, most), Slow(endpoint.live[0].model)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: lane.add(decoded(endpoint, tensor([[float(i), 0.0]]))), range(300)))
    loop.wait(300)
    assert slow.most <= most and len(slow.runs) == 300


def test_call_comes_back_whatever_goes_wrong_with_it() -> None:
    endpoint, loop = batched(models.identity(T.FLOAT, ["N", 2])), Loop(1)
    lane, slow = Lane(loop.compute, loop.completions, 1), Slow(endpoint.live[0].model)
    slow.open.clear()
    calls = [decoded(endpoint, tensor([[1.0, 2.0]])) for _ in range(6)]

    def fail(_: Any) -> Any:
        raise MemoryError("no more")

    calls[2].encode = fail  # type: ignore[method-assign]
    calls[4].complete = fail  # type: ignore[method-assign]
    lane.add(calls[0])
    assert slow.begun.acquire(timeout=30)
    for call in calls[1:]:
        lane.add(call)
    slow.open.set()
    loop.wait(6)
    for i, call in enumerate(calls):
        if i in (2, 4):
            assert isinstance(call.error, ServingError) and call.error.status == 500 and "more" not in call.error.text
        else:
            assert data_of(call) == [1.0, 2.0]


def test_two_endpoints_with_one_model_and_limits_leave_nobody_waiting(tmp_path: Any) -> None:
    """Calls of an endpoint without limits once stood behind those of one with, and were forgotten there."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        runtime = Runtime(parse_options(["--models", str(tmp_path)], {}), 0, Snapshots(tmp_path, 0), Cores(2, 1))
        dataplane = Dataplane(runtime, loop)
        model = model_of(models.identity(T.FLOAT, ["N", 2]))
        limited, free = endpoint_of(model, limits=(1, 100)), endpoint_of(model)
        runtime.swap(Table(1, {"limited": limited, "free": free}))
        slow = Slow(model)
        slow.open.clear()
        left = 60
        over = asyncio.Event()
        calls = []

        def finish(call: Call) -> None:
            nonlocal left
            calls.append((call.error, call.answer))
            left -= 1
            if not left:
                over.set()

        for number in range(60):
            endpoint = limited if number % 5 < 2 else free
            body = json.dumps({"inputs": [tensor([[float(number), 0.0]])]}).encode()
            dataplane.infer(request(endpoint, body, finish))
        slow.open.set()
        async with asyncio.timeout(30):
            await over.wait()
        assert all(error is None for error, _ in calls)
        assert runtime.table.inflight == 0 and limited.live[0].gate is not None
        assert limited.live[0].gate._inside == 0

    asyncio.run(run())
