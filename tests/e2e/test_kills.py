"""`kill -9` of each process in turn, the control plane away, `up` itself killed: serving answers throughout."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.small import classifier, first_row
from tests.e2e.stack import Load, Stack, send, state_of, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
BACK = 15.0  # seconds in which a killed process must run and answer again
NAME = "steady"


def jobs_path(job: int) -> str:
    return f"/jobs/{job}"


class Bench:
    """The stack with one endpoint that answers, and what the tests ask of it."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.api = stack, stack.api()
        headers = {"content-type": "application/octet-stream"}
        query = {"model": NAME, "file_name": "model.onnx"}
        done = self.api.post("/versions/upload", params=query, content=classifier(seed=1), headers=headers)
        assert done.status_code == 201, done.text
        rows = self.api.get("/artifacts", params={"version": done.json()["id"]}).json()["results"]
        self.artifact = rows[0]["id"]
        made = self.api.post("/endpoints", json={"name": NAME, "access": "open", "artifact": self.artifact})
        assert made.status_code == 201, made.text
        # Each connection is a new one: by then every serving process knows the endpoint.
        until(lambda: all(self.answers() for _ in range(30)), 30, "The endpoint's answers from all processes")

    def answers(self) -> bool:
        try:
            answer = httpx.post(f"{self.stack.serving}/v2/models/{NAME}/infer", json=first_row(), timeout=5)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def submit(self) -> int:
        """A real job; the API may be away for the moment of a restart."""

        def asked() -> int:
            try:
                body = {"optimizer": "dynamic-quantization"}
                answer = self.api.post(f"/artifacts/{self.artifact}/optimize", json=body)
            except httpx.TransportError:
                return 0
            assert answer.status_code in {202, 500, 502, 503}, answer.text
            return int(answer.json()["id"]) if answer.status_code == 202 else 0

        return int(until(asked, 30, "The submission of a job", every=0.3))

    def succeeded(self, job: int, limit: float = 90) -> None:
        def ended() -> Any:
            try:
                row = self.api.get(jobs_path(job)).json()
            except httpx.TransportError:
                return None
            return row if row.get("state") in {"succeeded", "failed", "cancelled"} else None

        row = until(ended, limit, f"The end of job {job}", every=0.5)
        assert row["state"] == "succeeded", row["reason"]

    def load(self, retries: int = 0) -> Load:
        return Load(self.stack.serving, NAME, first_row(), retries=retries)


@pytest.fixture(scope="module")
def bench(stack: Stack) -> Bench:
    return Bench(stack)


def healthy(bench: Bench, name: str) -> bool:
    """Whether the killed process does its work again, as others see it."""
    address = {"web": f"{bench.stack.url}/healthz", "mlflow": f"{bench.stack.mlflow}/health"}.get(name)
    try:
        if address is not None:
            return httpx.get(address, timeout=2).status_code == 200
        if name in {"postgres", "redis"}:
            return httpx.get(f"{bench.stack.url}/healthz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
    return True


@pytest.mark.parametrize("name", ["web", "worker", "control", "beat", "mlflow", "redis", "postgres"])
def test_process_is_back_and_serving_answers_when_killed(bench: Bench, name: str) -> None:
    before = bench.stack.main(name)
    with bench.load() as load:
        jobs = [bench.submit()]
        time.sleep(0.7)
        killed = time.monotonic()
        send(before)
        jobs.append(bench.submit())
        until(lambda: bench.stack.main(name) != before and healthy(bench, name), BACK, f"The return of {name}")
        back = time.monotonic() - killed
        for job in jobs:
            bench.succeeded(job)
    print(f"\n{name}: back after {back:.1f} s; {load.sent} requests, longest {load.longest * 1000:.0f} ms")
    assert load.failures == [] and load.sent > 50


def test_job_is_done_when_its_prefork_child_is_killed(bench: Bench) -> None:
    with bench.load() as load:
        job = bench.submit()
        until(lambda: bench.api.get(jobs_path(job)).json()["state"] == "running", 30, "The job's start")
        children = bench.stack.children("worker")
        for child in children:
            send(child)
        bench.succeeded(job)
        assert bench.api.get(jobs_path(job)).json()["attempt"] == 2
    assert load.failures == []


def listeners(stack: Stack) -> int:
    """How many serving processes listen for requests: one that was only started does not answer yet."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = f"{int(stack.env['SLIPWAY_SERVING_PORT']):04X}"
    inodes = {f"socket:[{w[9]}]" for w in lines if w[3] == "0A" and w[1].endswith(f":{listening}")}
    count = 0
    for child in stack.children("serving"):
        with contextlib.suppress(OSError):  # it may end while it is looked at
            count += any(os.readlink(fd) in inodes for fd in Path(f"/proc/{child}/fd").iterdir())
    return count


def test_no_request_is_lost_but_for_one_retry_when_a_serving_child_is_killed(bench: Bench) -> None:
    with bench.load(retries=1) as load:
        for _ in range(3):
            child = bench.stack.children("serving")[0]
            send(child)
            until(lambda child=child: child not in bench.stack.children("serving"), 5, "The child's end")
            until(lambda: listeners(bench.stack) >= (os.cpu_count() or 1), BACK, "The child's return")
        until(lambda: load.sent > 100, 30, "A hundred requests")
    assert load.failures == []


@pytest.fixture
def away(bench: Bench) -> Iterator[list[int]]:
    """The control plane's processes, stopped where they are until the test is over."""
    stack = bench.stack
    pids = [pid for name in ("web", "worker", "control", "beat", "mlflow", "redis") for pid in stack.pids()[name]]
    # PostgreSQL's own children carry its mark too.
    pids += stack.pids()["postgres"]
    try:
        for pid in pids:
            send(pid, signal.SIGSTOP)
        yield pids
    finally:
        for pid in reversed(pids):
            send(pid, signal.SIGCONT)
    until(lambda: healthy(bench, "web"), 30, "The control plane's return")


def test_serving_answers_and_starts_from_its_copy_when_the_control_plane_is_away(bench: Bench, away: list[int]) -> None:
    stack = bench.stack
    # A process that waits for a disk stops when it comes back from there.
    until(lambda: all(state_of(pid) in "TZX" for pid in away), 10, "The control plane's standstill")
    with bench.load() as load:
        until(lambda: load.sent > 100, 30, "A hundred requests")
    assert load.failures == []
    before = stack.main("serving")
    killed = time.monotonic()
    send(before)
    until(lambda: stack.main("serving") != before, BACK, "Serving's restart")
    until(bench.answers, BACK, "An answer from the copy on disk")
    print(f"\nserving answers from its copy {time.monotonic() - killed:.1f} s after kill -9 of all of it")
    with bench.load() as load:
        time.sleep(1)
    assert load.failures == []


def test_jobs_go_on_when_the_control_plane_is_back(bench: Bench) -> None:
    bench.succeeded(bench.submit())


def test_nothing_is_left_and_a_second_start_works_when_up_is_killed() -> None:
    stack = Stack(SLIPWAY_LEASE_SECONDS="5")
    try:
        stack.start()
        bench = Bench(stack)
        job = bench.submit()
        assert stack.up is not None
        stack.up.kill()
        stack.up.wait()
        until(lambda: not stack.everything(), 15, "The end of everything")
        stack.start()
        again = object.__new__(Bench)
        again.stack, again.api, again.artifact = stack, stack.api(), bench.artifact
        until(again.answers, 30, "The endpoint's answer after the restart")
        again.succeeded(job)
        again.succeeded(again.submit())
    finally:
        stack.remove()
