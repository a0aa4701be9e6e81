"""Jobs of all kinds under killed workers, zombies, a forgetful broker and a restarted database.

CHAOS_JOBS sets how many, CHAOS_KILLS how many kills at least, CHAOS_SEED which; what happened is printed.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

import httpx
import pytest

from tests.chaos.faults import Board, Faults, Workers
from tests.e2e.small import classifier
from tests.e2e.stack import Stack, until

JOBS = int(os.environ.get("CHAOS_JOBS", "150"))
KILLS = int(os.environ.get("CHAOS_KILLS", "30"))
SEED = int(os.environ.get("CHAOS_SEED", "7"))
SETTLE = 60.0  # seconds after the last fault in which every job must have ended
LONGEST = 60 + JOBS * 1.2  # seconds of faults
PAUSE = 2.5  # seconds between faults, on average
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(int(LONGEST + SETTLE + 240))]

VERSIONS = JOBS * 4 // 15  # each is taken in, exported and measured
VARIANTS = JOBS // 15  # so many of the exports are optimized
UPLOADS = max(3, JOBS // 30)  # each is optimized and, but the first, rolled out
ROLLOUTS = max(2, JOBS // 18)
RETRAININGS = max(1, JOBS // 75)  # each trains, is taken in, exported and measured
STEPS = [
    {"mode": "canary", "weight": 50, "min_seconds": 1},
    {"mode": "full", "weight": 100, "min_seconds": 1},
]


class Submitter(threading.Thread):
    """Asks for the work over HTTP while the faults go on, as clients do: again when nobody answered."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(daemon=True)
        self.stack, self.error = stack, ""
        self.api = stack.api()

    def ask(self, method: str, path: str, **given: Any) -> Any:
        deadline = time.monotonic() + 90
        while True:
            try:
                answer = self.api.request(method, path, **given)
                if answer.status_code < 500:
                    assert answer.is_success, f"{method} {path}: {answer.text}"
                    return answer.json()
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"{method} {path} was not answered"
            time.sleep(0.5)

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.error = repr(error)

    def _run(self) -> None:
        self.stack.python(f"from tests.chaos.seed import versions_register\nversions_register('herd', {VERSIONS})")
        artifacts = [self.upload(seed) for seed in range(100, 100 + UPLOADS)]
        for artifact in artifacts:
            self.optimize(artifact)
        for index in range(ROLLOUTS):
            body = {"name": f"chaos-{index}", "access": "open", "artifact": artifacts[0]}
            endpoint = self.ask("POST", "/endpoints", json=body, headers={"Idempotency-Key": f"endpoint-{index}"})
            body = {"endpoint": endpoint["id"], "artifact": artifacts[1 + index % (UPLOADS - 1)], "steps": STEPS}
            self.ask("POST", "/rollouts", json=body, headers={"Idempotency-Key": f"rollout-{index}"})
        optimized: set[int] = set()
        fired = 0
        deadline = time.monotonic() + LONGEST + 30
        while len(optimized) < VARIANTS or fired < RETRAININGS:
            assert time.monotonic() < deadline, f"only {len(optimized)} exports were there to optimize"
            made = [job["result"]["artifact"] for job in self.exports()]
            for artifact in [row for row in made if row not in optimized][: VARIANTS - len(optimized)]:
                self.optimize(artifact)
                optimized.add(artifact)
            if made and fired < RETRAININGS:
                self.fire(fired)
                fired += 1
            time.sleep(0.5)

    def exports(self) -> list[Any]:
        """The exports of this test's model that succeeded, page by page."""
        rows, address = [], "/jobs?kind=export&state=succeeded&limit=100"
        while address:
            page = self.ask("GET", address)
            rows += [job for job in page["results"] if job["subject"].startswith("herd ")]
            address = page["next"]
        return rows

    def upload(self, seed: int) -> int:
        query = {"model": "uploads", "file_name": "model.onnx"}
        headers = {"content-type": "application/octet-stream"}
        made = self.ask("POST", "/versions/upload", params=query, content=classifier(seed), headers=headers)
        return int(self.ask("GET", f"/artifacts?version={made['id']}")["results"][0]["id"])

    def optimize(self, artifact: int) -> None:
        self.ask("POST", f"/artifacts/{artifact}/optimize", json={"optimizer": "dynamic-quantization"})

    def fire(self, index: int) -> None:
        model = self.ask("GET", "/models?name=herd")["results"][0]["id"]
        body = {"model": model, "name": f"again {index}", "hook": False}
        made = self.ask("POST", "/policies", json=body, headers={"Idempotency-Key": f"policy-{index}"})
        self.ask("POST", f"/policies/{made['id']}/fire")


def test_no_job_is_lost_and_no_effect_doubled_when_everything_around_them_fails(chaos_stack: Stack) -> None:
    board, workers = Board(chaos_stack), Workers(chaos_stack)
    submitter = Submitter(chaos_stack)
    faults = Faults(workers, board, seed=SEED, kills=KILLS)
    before = sum(board.states().values())
    workers.tend()
    began = time.monotonic()
    try:
        submitter.start()
        until(lambda: board.states()["succeeded"] > 0, 60, "The first job's end")
        dealt_at = due = time.monotonic()
        while faults.deck and time.monotonic() - began < LONGEST:
            workers.tend()
            states = board.states()
            ended = sum(states.values()) - before - states["queued"] - states["running"]
            # The faults keep step with the work, so that the last one meets some of it.
            share = ended >= 0.9 * JOBS * faults.dealt / faults.planned or time.monotonic() - dealt_at > 3 * PAUSE
            if time.monotonic() >= due and share:
                faults.one()
                dealt_at = time.monotonic()
                due = dealt_at + PAUSE * (0.5 + faults.random.random())
            time.sleep(0.2)
        faults.over()
        last, live = time.monotonic(), board.live()
        while time.monotonic() - last < SETTLE and (submitter.is_alive() or board.live()):
            workers.tend()
            time.sleep(0.5)
        settled, count = time.monotonic() - last, sum(board.states().values()) - before
        print(
            f"\n{count} jobs, {faults.kills} kills, {dict(faults.counts)}, seed {SEED}: faults for "
            f"{last - began:.0f} s, {live} live jobs then, ended {settled:.1f} s later; "
            f"{dict(workers.starts)} starts; now {dict(board.states())}"
        )
        assert submitter.error == ""
        assert board.live() == 0
    finally:
        workers.stop()
    wrong = json.loads(chaos_stack.python("from tests.chaos.ledger import main\nmain()").splitlines()[-1])
    assert wrong == []
    assert faults.kills >= KILLS and not faults.deck
    assert count >= JOBS * 0.95
