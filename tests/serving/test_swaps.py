"""Changes under constant load, bad ones among them: nobody is failed, and only what is live at that moment answers."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.formats import signing
from engine.formats.signing import Recorded
from tests.serving import models
from tests.serving.conftest import Server, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.load import Connection, Load, Seen, port_of, post, pressure
from tests.serving.models import rows

Serve = Callable[..., Server]
SWAPS = 100
KEY = signing.private_key(signing.generate())
PROCESSES = 2


def sign(data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    facts = Recorded("p", "m", 1, file_name="model.onnx", format="onnx", sha256=digest, size=len(data))
    return signing.sign(facts, KEY, dt.datetime.now(dt.UTC))


class Live:
    """When each version may answer: from when it was published until all had said that they moved on."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}
        self.until: dict[str, float] = {}

    def wish(self, *versions: str) -> None:
        for version in versions:
            self.since.setdefault(version, time.monotonic())

    def reached(self, *versions: str) -> None:
        for version in self.since.keys() - set(versions):
            self.until.setdefault(version, time.monotonic())

    def wrong(self, seen: list[Seen]) -> list[Seen]:
        """Answers of versions that could not be live at any moment between question and answer."""
        never = float("inf")
        return [
            one
            for one in seen
            if one.answered < self.since.get(one.value, never) or one.asked > self.until.get(one.value, never)
        ]


def test_nothing_fails_over_a_hundred_swaps_with_bad_ones_among_them(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.pem"
    keys.write_bytes(signing.public_pem(KEY))

    def constant(version: int, weight: float = 100) -> dict[str, Any]:
        data = control.add(models.constant(version))
        return deployment(str(version), data, weight, signature=sign(data))

    def bad(kind: int, version: int) -> tuple[dict[str, Any], str]:
        """A change that must not come through, and a part of the reason that has to be told."""
        data = models.constant(version)
        wanted = deployment(str(version), data, signature=sign(data))
        digest = wanted["artifact"]["sha256"]
        if kind == 0:
            control.artifacts[digest] = data[:-9]
            return endpoint("m", wanted), "bytes"
        if kind == 1:
            control.artifacts[digest] = data[:-1] + b"x"
            return endpoint("m", wanted), "corrupt"
        if kind == 2:
            junk = control.add(b"no model %d" % version)
            return endpoint("m", deployment(str(version), junk, signature=sign(junk))), "refused the model"
        if kind == 3:
            return endpoint("m", deployment(str(version), control.add(data))), "not signed"
        control.add(data)
        return {**endpoint("m", wanted), "access": "everyone"}, "access must be"

    live = Live()
    live.wish("1")
    control.publish(endpoint("m", constant(1)))
    server = serve(
        *("--home", str(tmp_path), "--control-url", control.url, "--trust-keys", str(keys)), processes=PROCESSES
    ).wait_ready("m")
    wait_until(lambda: control.observed(1, PROCESSES))
    held, refused = 1, []
    with pressure(server.url, "m", 2) as hammered, Load(server.url, post("m"), clients=2, pause=0.001) as load:
        for number in range(2, SWAPS + 2):
            if number % 10 == 0:
                spec, reason = bad(number // 10 % 5, number)
                control.publish(spec)
                wait_until(lambda n=number: all(n in s for s in told(control, "failed")) and told(control, "failed"))
                assert reason in control.state(str(number))["reason"], control.state(str(number))
                refused.append(str(number))
                continue
            # A new version joins with some weight; every other time it takes over whole.
            share = 100 if number % 2 else number * 7 % 90 + 5
            wanted = [constant(number, share)] + ([constant(held, 100 - share)] if share < 100 else [])
            live.wish(str(number))
            generation = control.publish(endpoint("m", *wanted))
            wait_until(lambda g=generation: control.observed(g, PROCESSES))
            live.reached(*(one["id"] for one in wanted))
            held = number
        time.sleep(0.2)
    assert load.failures == [] and hammered.failures == ""
    assert live.wrong(load.seen) == []
    assert len(refused) == 10 and not load.values & set(refused)
    assert len(load.values) > SWAPS // 2 and len(load.seen) > SWAPS and hammered.requests > SWAPS
    print(f"\n{SWAPS} changes, {len(load.seen)} answers looked at, {hammered.requests} more, 0 failed")


def told(control: ControlPlane, state: str) -> list[set[int]]:
    """What each process last said to be in a state."""
    states = control.states()
    return [{int(i) for i, s in said.items() if s["state"] == state} for said in states] if len(states) > 1 else []


def test_key_stays_on_the_growing_side_when_weights_change(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    old, new = (control.add(models.constant(n)) for n in (1, 2))
    keys = [f"caller-{n}" for n in range(200)]

    def spread(server: Server) -> dict[str, str]:
        found = {}
        for _ in range(2):  # whichever process takes the connection
            with Connection(port_of(server.url)) as client:
                for key in keys:
                    answer = client.ask(post("m", X_Slipway_Key=key))
                    assert answer.status == 200
                    version = answer.body.partition(b'"model_version":"')[2][:1].decode()
                    assert found.setdefault(key, version) == version
        return found

    control.publish(endpoint("m", deployment("1", old)))
    server = serve("--home", str(tmp_path), "--control-url", control.url, processes=PROCESSES).wait_ready("m")
    moved: set[str] = set()
    for share in (5, 25, 50, 75, 100):
        parts = [deployment("2", new, share)] + ([deployment("1", old, 100 - share)] if share < 100 else [])
        generation = control.publish(endpoint("m", *parts))
        wait_until(lambda g=generation: control.observed(g, PROCESSES))
        now = {key for key, version in spread(server).items() if version == "2"}
        assert moved <= now
        assert abs(len(now) - share * 2) <= 30
        moved = now
    assert moved == set(keys)


@pytest.mark.parametrize("kind", ["slow", "hanging", "failing", "other outputs"])
def test_clients_notice_nothing_when_a_shadow_is(
    serve: Serve, control: ControlPlane, tmp_path: Path, kind: str
) -> None:
    data = {
        "slow": models.slow(300),
        "hanging": models.hanging(100),
        "failing": models.failing(),
        "other outputs": models.classifier(),
    }[kind]
    live = deployment("1", control.add(models.constant(1)))
    shadow = deployment("2", control.add(data), 0, "shadow")
    control.publish(endpoint("m", live))
    server = serve("--home", str(tmp_path), "--control-url", control.url).wait_ready("m")
    request = post("m", {"inputs": [{**rows(), "data": [1000.0] * 4}]}, X_Request_Id="same")
    with Connection(port_of(server.url)) as client:
        alone = client.ask(request)
        threads = _threads(server)
        asked = 0
        for _ in range(20 if kind == "hanging" else 3):
            generation = control.publish(endpoint("m", live, shadow))
            wait_until(lambda g=generation: control.observed(g))
            assert control.state("2")["state"] == "ready"
            for _ in range(100):
                assert client.ask(request) == alone
            asked += 100
            generation = control.publish(endpoint("m", live))
            wait_until(lambda g=generation: control.observed(g))
    # Its thread goes with it, whatever it was doing.
    wait_until(lambda: _threads(server) <= threads + 1)
    dropped = _metric(server, "slipway_shadow_requests_dropped_total")
    if kind == "hanging":
        assert dropped >= asked - 20 * (64 + 1)
    else:
        assert dropped <= asked
    windows = [w for report in control.received for w in report["windows"] if w["deployment"] == "2"]
    copied, errors = sum(w["requests"] for w in windows), sum(w["errors"] for w in windows)
    assert copied + dropped <= asked
    assert errors == copied if kind == "failing" else errors == 0


def _metric(server: Server, name: str) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def _threads(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.children()[0]}/task"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A folder that holds no more than a few hundred kilobytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_server_goes_on_and_says_so_once_when_the_disk_is_full(
    serve: Serve, control: ControlPlane, small_disk: Path
) -> None:
    data = [control.add(models.constant(n)) for n in range(1, 4)]
    token = {"sha256": hashlib.sha256(b"secret").hexdigest(), "rate": 1e6, "burst": 1000}
    spec = {**endpoint("m", deployment("1", data[0], 50), deployment("2", data[1], 50)), "tokens": [token]}
    spec["access"] = "token"
    control.publish(spec)
    # Metrics, quotas and what is known of the desired state, all on the one disk.
    home = small_disk / "home"
    server = serve("--home", str(home), "--control-url", control.url, env={"TMPDIR": str(small_disk)})
    wait_until(lambda: control.observed(1))
    (pid,) = server.children()
    saved = (home / "state.json").read_bytes()
    filler = small_disk / "filler"
    for _ in range(30):  # what is being replaced meanwhile gives its space back a moment later
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        time.sleep(0.05)
    ask = post("m", Authorization="Bearer secret")
    with Load(server.url, ask, clients=2, pause=0.002) as load:
        for share in (60, 70, 80):
            weights = [{**spec["deployments"][0], "weight": share}, {**spec["deployments"][1], "weight": 100 - share}]
            # A token more each time: what counts its requests is on that disk, too.
            more = [{**token, "sha256": hashlib.sha256(b"%d" % (share + n)).hexdigest()} for n in range(9)]
            generation = control.publish({**spec, "deployments": weights, "tokens": [token, *more]})
            wait_until(lambda g=generation: control.observed(g))
        # A version that cannot be kept is not served, and its reason told.
        control.publish({**spec, "deployments": [deployment("3", data[2])]})
        wait_until(lambda: control.state("3").get("state") == "failed")
        assert "space" in control.state("3")["reason"]
        time.sleep(1.5)  # numbers are written each second
        assert server.client.get("/metrics").status_code == 200
        said = [line for line in server.stderr if "could not be saved" in line]
        assert len(said) == 1 and len([line for line in server.stderr if "cannot be shared" in line]) == 1
        assert (home / "state.json").read_bytes() == saved
        filler.unlink()
        wait_until(lambda: control.state("3").get("state") == "ready", 30)
        wait_until(lambda: b'"id": "3"' in (home / "state.json").read_bytes())
    assert load.failures == [] and load.values == {"1", "2", "3"}
    assert server.children() == [pid]
