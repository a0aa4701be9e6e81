"""`kill -9` of the worker in the middle of a search, twice: it ends by itself, with every trial once."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest

from tests.e2e.small import classifier
from tests.e2e.stack import Stack, send, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
GOAL = {"trials": 5, "minutes": 8, "max_loss": 10, "prefer": "size"}
ENDED = {"measured", "refused", "failed"}
HIDDEN = 1024
ROWS = f"""
from registry.models import Version
from tests.e2e.small import classifier
from tests.registry import lab
lab.dataset(Version.objects.get(pk={{}}), lab.rows(400, model=classifier(7, hidden={HIDDEN})))
"""


class Lab:
    """An artifact to search, and what the tests ask of its searches."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.api = stack, stack.api()
        params = {"model": "killed", "project": "default", "file_name": "a.onnx", "task": "tabular-classification"}
        answer = self.api.post("/versions/upload", params=params, content=classifier(7, hidden=HIDDEN))
        assert answer.status_code == 201, answer.text
        self.version = int(answer.json()["id"])
        self.artifact = self.artifacts()[0]["id"]
        stack.python(ROWS.format(self.version))

    def get(self, path: str, **params: Any) -> Any:
        answer = self.api.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def artifacts(self) -> list[dict[str, Any]]:
        return list(self.get("/artifacts", version=self.version, format="onnx", limit=100)["results"])

    def start(self) -> int:
        answer = self.api.post(f"/artifacts/{self.artifact}/searches", json={"goal": GOAL})
        assert answer.status_code == 202, answer.text
        return int(answer.json()["params"]["search_id"])

    def trials(self, search: int) -> list[dict[str, Any]]:
        return list(self.get(f"/searches/{search}/trials"))

    def at_work(self, search: int, but: set[str]) -> list[dict[str, Any]]:
        """Trials under way, past their first step, that are none of `but`."""
        running = [one for one in self.trials(search) if one["state"] == "running" and one["key"] not in but]
        return [one for one in running if self.get(f"/jobs/{one['job']}")["step"] not in ("", "fetch")]

    def kill(self, search: int, before: set[str], *, whole: bool) -> set[str]:
        """Kills the worker while trials that were not hit before are at work; the keys of these."""
        victims = until(lambda: self.at_work(search, before), 120, "A trial at work", every=0.2)
        main = self.stack.main("worker")
        for pid in [main, *(self.stack.children("worker") if whole else [])]:
            send(pid)
        until(lambda: self.stack.main("worker") != main, 30, "The worker's return")
        return {one["key"] for one in victims}

    def end(self, search: int) -> dict[str, Any]:
        def ended() -> Any:
            row = self.get(f"/searches/{search}")
            return row if row["state"] not in ("queued", "running") else None

        return dict(until(ended, 300, f"The end of search {search}", every=0.5))


@pytest.fixture(scope="module")
def lab(stack: Stack) -> Lab:
    return Lab(stack)


def kind(row: dict[str, Any]) -> str:
    """What sort of answer a search came to."""
    return "recommended" if row["recommended"] else "to relax" if row["relax"] else "as it is"


def test_search_ends_with_every_trial_once_when_its_worker_is_killed_twice(lab: Lab) -> None:
    search = lab.start()
    # First the parent alone, whose children end with it; then all of them at one stroke.
    killed = lab.kill(search, set(), whole=False)
    killed |= lab.kill(search, killed, whole=True)
    row = lab.end(search)
    assert row["state"] == "succeeded", row["reason"]
    trials = lab.trials(search)
    attempts = {one["key"]: lab.get(f"/jobs/{one['job']}")["attempt"] for one in trials}
    assert len(killed) >= 2 and all(attempts[key] >= 2 for key in killed), attempts
    # None twice, none lost, none left, and each by a job of its own that is over.
    assert len(trials) == len({one["key"] for one in trials}) == len({one["job"] for one in trials}) == GOAL["trials"]
    assert {one["state"] for one in trials} <= ENDED and row["counts"]["tried"] == GOAL["trials"]
    assert all(lab.get(f"/jobs/{one['job']}")["state"] == "succeeded" for one in trials)
    check_variants(lab, [one for one in trials if one["state"] == "measured"])

    quiet = lab.end(lab.start())
    same = lab.trials(quiet["id"])
    assert quiet["state"] == "succeeded" and kind(quiet) == kind(row) == "recommended"
    assert {(one["key"], one["state"]) for one in same} == {(one["key"], one["state"]) for one in trials}
    assert all(lab.get(f"/jobs/{one['job']}")["attempt"] == 1 for one in same)


def check_variants(lab: Lab, measured: list[dict[str, Any]]) -> None:
    """Each measured trial has its own artifact, whose bytes are there, and no others were left behind."""
    by_id = {one["id"]: one for one in lab.artifacts()}
    assert measured and by_id.keys() - {lab.artifact} == {one["artifact"] for one in measured}
    for one in measured:
        answer: httpx.Response = lab.api.get(f"/artifacts/{one['artifact']}/content")
        assert answer.status_code == 200, answer.text
        found = by_id[one["artifact"]]
        assert hashlib.sha256(answer.content).hexdigest() == found["sha256"] and found["parent"] == lab.artifact
        assert len(found["measurements"]) == 1
