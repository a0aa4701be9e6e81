"""A hundred changes under constant load, bad ones among them: nobody is failed, and only live versions answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.serving import models
from tests.serving.conftest import Server, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.models import rows

Serve = Callable[..., Server]
SWAPS = 100


class Load:
    """Clients that never pause; every answer is looked at."""

    def __init__(self, url: str, clients: int) -> None:
        self.answered = 0
        self.wrong: list[str] = []
        self.versions: set[str] = set()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, url: str) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while not self._over.is_set():
                try:
                    answer = client.post("/v2/models/m/infer", json={"inputs": [rows()]})
                    body = answer.json()
                    # The model's own constant tells who computed, the version who is said to have.
                    good = answer.status_code == 200 and f"{body['outputs'][0]['data'][0]:g}" == body["model_version"]
                    text = answer.text
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    good, text, body = False, repr(error), {}
                with self._lock:
                    self.answered += 1
                    if good:
                        self.versions.add(body["model_version"])
                    else:
                        self.wrong.append(text)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_nothing_fails_over_a_hundred_swaps_with_bad_ones_among_them(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    def constant(version: int, weight: float = 100) -> dict:
        return deployment(str(version), control.add(models.constant(version)), weight)

    control.publish(endpoint("m", constant(1)))
    server = serve("--home", str(tmp_path), "--control-url", control.url, processes=2).wait_ready("m")
    load = Load(server.url, 4)
    refused = 0
    try:
        for number in range(2, SWAPS + 2):
            bad = number % 20 == 0
            if number % 20 == 5:
                # Not even a document: the former state stays.
                control.publish(endpoint("m", constant(number - 1, 60)))
            if bad:
                content = models.constant(number)
                broken = deployment(str(number), content)
                control.artifacts[broken["artifact"]["sha256"]] = content[:-9] if number % 40 else b"x" * len(content)
                control.publish(endpoint("m", broken))
                wait_until(lambda n=number: control.state(str(n)).get("state") == "failed")
                assert "artifact" in control.state(str(number))["reason"]
                refused += 1
                continue
            share = number * 7 % 100 or 50
            before = number - 1 if (number - 1) % 20 else number - 2
            generation = control.publish(
                endpoint("m", constant(before, 100 - share), constant(number, share))
                if before > 0
                else endpoint("m", constant(number))
            )
            wait_until(lambda g=generation: control.observed(g, 2))
        time.sleep(0.3)
    finally:
        load.stop()
    assert load.wrong == [] and load.answered > SWAPS
    assert refused == 5 and len(load.versions) > SWAPS // 2
    assert not {version for version in load.versions if int(version) % 20 == 0}


def test_shadow_that_hangs_or_fails_changes_nothing_for_clients(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    live = deployment("1", control.add(models.constant(1)))
    control.publish(endpoint("m", live))
    server = serve("--home", str(tmp_path), "--control-url", control.url).wait_ready("m")
    threads = _threads(server)
    for turn in range(6):
        data = models.slow(6_000) if turn % 2 else models.failing()
        shadow = deployment(str(10 + turn), control.add(data), 0, "shadow")
        generation = control.publish(endpoint("m", live, shadow))
        wait_until(lambda g=generation: control.observed(g))
        answers = [server.infer("m", rows()) for _ in range(80)]
        assert {(a.status_code, a.json()["model_version"]) for a in answers} == {(200, "1")}
    control.publish(endpoint("m", live))
    assert "slipway_shadow_requests_dropped_total" in server.client.get("/metrics").text
    # A shadow's thread ends with the copies it still has.
    wait_until(lambda: _threads(server) <= threads + 2, 60)


def _threads(server: Server) -> int:
    return len(list(Path(f"/proc/{server.children()[0]}/task").iterdir()))
