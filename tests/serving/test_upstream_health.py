"""When an upstream is asked at all: its breaker, its addresses, its readiness."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from serving.breaker import BREAK_AFTER, BREAK_S, Breaker
from serving.call import ModelFailure
from serving.destination import UpstreamError, checked
from serving.document import UpstreamSpec
from serving.protocol.encode import Encoded
from serving.upstream import Upstream
from tests.serving.fake_upstream import BODY, FakeUpstream, refusal, slowly, use


def test_breaker_opens_after_failures_in_a_row_and_one_trial_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("serving.breaker.time.monotonic", lambda: now)
    breaker = Breaker()

    def refused() -> bool:
        try:
            breaker.leave(failed=True, trial=breaker.enter())
        except ModelFailure as error:
            assert error.status == 503 and dict(error.headers)[b"retry-after"]
            return True
        return False

    for _ in range(BREAK_AFTER - 1):
        assert not refused()
    breaker.leave(failed=False, trial=breaker.enter())  # one success: counting starts anew
    late = [breaker.enter() for _ in range(3)]
    for _ in range(BREAK_AFTER):
        assert not refused()
    assert breaker.open and refused()
    now += BREAK_S + 0.1
    trial = breaker.enter()
    assert trial and refused()
    for one in late:  # what began before it opened decides nothing, for good or ill
        breaker.leave(failed=False, trial=one)
    assert refused()
    breaker.leave(failed=True, trial=trial)
    assert refused()
    now += BREAK_S + 0.1
    trial = breaker.enter()
    breaker.leave(failed=False, trial=trial)
    assert not breaker.open and not refused() and not refused()


def test_open_breaker_refuses_without_asking_until_a_trial_succeeds(
    fake: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.breaker.BREAK_S", 0.2)

    async def run(upstream: Upstream) -> None:
        async def codes(count: int) -> list[int]:
            asked = (upstream.rest("ours", "3", BODY, {}) for _ in range(count))
            found = await asyncio.gather(*asked, return_exceptions=True)
            return [200 if isinstance(one, Encoded) else one.status for one in found]

        fake.answers = lambda _: (500, {}, b"")
        assert await codes(BREAK_AFTER) == [502] * BREAK_AFTER
        seen = len(fake.requests)
        assert await codes(10) == [503] * 10 and len(fake.requests) == seen
        await asyncio.sleep(0.25)
        fake.answers = slowly(0.2)
        assert sorted(await codes(10)) == [200] + [503] * 9
        assert len(fake.requests) == seen + 1
        assert await codes(10) == [200] * 10
        assert upstream.counts == {
            "upstream_requests": BREAK_AFTER + 11,
            "upstream_failures": BREAK_AFTER,
            "upstream_requests_refused": 19,
        }

    use(fake.url, run)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "0.0.0.0", "224.0.0.1", "100.100.100.200", "::", "fe80::1", "fe80::1%eth0", "ff02::1",
        "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_address_that_must_not_be_asked_is_refused(address: str) -> None:
    with pytest.raises(UpstreamError, match="must not be asked"):
        checked(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "::1", "fd12::1", "203.0.113.9", "2001:db8::1"])
def test_address_of_a_private_network_is_taken(address: str) -> None:
    assert checked(address) == address


@pytest.mark.parametrize("host", ["169.254.169.254", "0xA9FEA9FE", "2852039166", "0251.0376.0251.0376"])
def test_forms_of_a_forbidden_address_are_seen_through(host: str) -> None:
    error = refusal(f"http://{host}:80", timeout_s=1)
    assert isinstance(error, ModelFailure) and error.status == 503


def test_name_that_changes_its_mind_leads_nowhere(fake: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(fake.url.rsplit(":", 1)[1])

    async def run(upstream: Upstream) -> None:
        loop = asyncio.get_running_loop()
        found = "127.0.0.1"

        async def resolve(host: str, port: int, **_: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]

        monkeypatch.setattr(loop, "getaddrinfo", resolve)
        await upstream.look()
        assert upstream.ready and (await upstream.rest("ours", "3", BODY, {})).body
        found = "169.254.169.254"
        assert (await upstream.rest("ours", "3", BODY, {})).body, "it goes on to what was checked"
        await upstream.look()
        assert "must not be asked" in upstream.problem
        with pytest.raises(ModelFailure):
            await upstream.rest("ours", "3", BODY, {})

    use(f"http://changing.test:{port}", run)


def test_readiness_is_what_the_upstream_said_last(fake: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(upstream: Upstream) -> None:
        assert upstream.ready and upstream.signature is None
        await upstream.look()
        assert upstream.ready and upstream.signature == {("x", "FP32", (-1, 4))}
        fake.ready = 503
        await upstream.look()
        assert not upstream.ready and "503" in upstream.problem
        fake.ready = 200
        await upstream.look()
        assert upstream.ready

    use(fake.url, run)


@pytest.mark.parametrize("inputs", [None, 5, [5], [{"name": "x"}], [{"name": [], "datatype": "FP32", "shape": [1]}]])
def test_metadata_that_says_nothing_of_use_is_no_obstacle(fake: FakeUpstream, inputs: Any) -> None:
    fake.inputs = inputs

    async def run(upstream: Upstream) -> None:
        await upstream.look()
        assert upstream.ready and upstream.signature is None

    use(fake.url, run)


def test_silence_once_is_taken_for_work_and_twice_for_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.upstream.LOOK_S", 0.2)
    silent = False

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not silent:
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()
            writer.close()

    async def run() -> None:
        nonlocal silent
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        known, new = Upstream(UpstreamSpec(url, "m", None, 5)), Upstream(UpstreamSpec(url, "m", None, 5))
        await known.look()
        silent = True
        await known.look()
        assert known.ready
        await known.look()
        await new.look()
        assert not known.ready and not new.ready and "in time" in new.problem
        server.close()
        await known.close()
        await new.close()

    asyncio.run(run())
