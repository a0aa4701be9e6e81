"""The client of another V2 server, against one that answers well or badly: statuses, limits, retries, breaker."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from serving.breaker import BREAK_AFTER, BREAK_S, Breaker
from serving.call import ModelFailure
from serving.destination import UpstreamError, checked
from serving.document import UpstreamSpec
from serving.protocol.encode import Encoded
from serving.protocol.errors import BadInput, ServingError
from serving.upstream import Upstream
from tests.serving.fake_upstream import ANSWER, FakeUpstream, slowly

BODY = b'{"inputs": []}'


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    upstream = FakeUpstream()
    yield upstream
    upstream.stop()


def use(url: str, test: Callable[[Upstream], Coroutine[Any, Any, Any]], timeout_s: float = 5, **spec: Any) -> Any:
    async def main() -> Any:
        upstream = Upstream(UpstreamSpec(url, "theirs", spec.get("version"), timeout_s))
        try:
            return await test(upstream)
        finally:
            await upstream.close()

    return asyncio.run(main())


def ask(url: str, **more: Any) -> Encoded:
    found: Encoded = use(url, lambda upstream: upstream.rest("ours", "3", BODY, {"x-request-id": "r"}), **more)
    return found


def refusal(url: str, **more: Any) -> ServingError:
    with pytest.raises(ServingError) as refused:
        ask(url, **more)
    return refused.value


def said(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps(value).encode()


def test_request_goes_out_as_it_came_and_its_answer_bears_our_names(fake: FakeUpstream) -> None:
    answer = ask(fake.url, version="4")
    assert answer.json_size is None
    assert json.loads(answer.body) == {**ANSWER, "model_name": "ours", "model_version": "3"}
    ((path, headers, body),) = fake.requests
    assert path == "/v2/models/theirs/versions/4/infer" and body == BODY
    assert headers["x-request-id"] == "r" and headers["accept-encoding"] == "identity"
    assert headers["host"] == fake.url.removeprefix("http://")


def test_answer_without_names_of_its_own_gets_ours(fake: FakeUpstream) -> None:
    fake.answers = lambda _: said({"outputs": []})
    assert json.loads(ask(fake.url).body) == {"outputs": [], "model_name": "ours", "model_version": "3"}


def test_path_of_an_upstreams_address_is_kept(fake: FakeUpstream) -> None:
    ask(f"{fake.url}/seldon/x")
    assert fake.requests[0][0] == "/seldon/x/v2/models/theirs/infer"


def test_name_is_resolved_and_sent_as_host(fake: FakeUpstream) -> None:
    ask(fake.url.replace("127.0.0.1", "localhost"))
    assert fake.requests[0][1]["host"].startswith("localhost:")


def test_only_the_json_of_a_binary_answer_is_written_anew(fake: FakeUpstream) -> None:
    head, tail = json.dumps({"outputs": []}).encode(), bytes(range(256)) * 400
    fake.answers = lambda _: (200, {"Inference-Header-Content-Length": str(len(head))}, head + tail)
    answer = ask(fake.url)
    assert answer.json_size is not None
    assert json.loads(answer.body[: answer.json_size])["model_name"] == "ours"
    assert answer.body[answer.json_size :] == tail


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "text"),
    [
        (400, b'{"error": "no such input"}', BadInput, 400, "refused the request: no such input"),
        (400, b'{"message": "torch says no"}', BadInput, 400, "torch says no"),
        (422, b'{"detail": "bad"}', BadInput, 400, "bad"),
        (400, b'{"detail": [{"loc": ["/srv/app.py"]}]}', BadInput, 400, "status 400"),
        (400, b"<html>/usr/lib/python3</html>", BadInput, 400, "status 400"),
        (413, b"[]", BadInput, 400, "status 413"),
        (400, json.dumps({"error": "a\r\n\x1b[31m" + "x" * 5000}).encode(), BadInput, 400, "a???[31mxxx"),
        (429, b"", ServingError, 503, "busy"),
        (301, b"", ModelFailure, 502, "answered 301"),
        (204, b"", ModelFailure, 502, "answered 204"),
        (401, b"", ModelFailure, 502, "answered 401"),
        (404, b'{"error": "no model"}', ModelFailure, 502, "answered 404"),
        (500, b'{"error": "Traceback"}', ModelFailure, 502, "answered 500"),
        (503, b"", ModelFailure, 502, "answered 503"),
    ],
)
def test_status_of_an_upstream_becomes_ours(
    fake: FakeUpstream, status: int, body: bytes, kind: type, code: int, text: str
) -> None:
    fake.answers = lambda _: (status, {"Location": "/elsewhere"}, body)
    error = refusal(fake.url)
    assert (type(error), error.status) == (kind, code) and text in error.text
    assert len(error.text) < 400 and error.text.isprintable()
    assert len(fake.requests) == 1, "neither repeated nor led elsewhere"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b""),
        ({}, b"not json"),
        ({}, b"[1]"),
        ({}, b'"text"'),
        ({}, b'{"error": "in disguise"}'),
        ({}, b'{"outputs": 5}'),
        ({}, b'{"outputs": [NaN]}'),
        ({}, b"[" * 100_000),
        ({"Inference-Header-Content-Length": "99"}, b'{"outputs": []}'),
        ({"Inference-Header-Content-Length": "-1"}, b'{"outputs": []}'),
        ({"Inference-Header-Content-Length": "0"}, b'{"outputs": []}'),
        ({"Inference-Header-Content-Length": "\u0663"}, b'{"outputs": []}'),
        ({"Inference-Header-Content-Length": "9" * 5000}, b'{"outputs": []}'),
        ({"Content-Encoding": "gzip"}, gzip.compress(b'{"outputs": []}', mtime=0)),
        ({"Content-Length": "50"}, b"short"),
        ({"Transfer-Encoding": "chunked"}, b"zz\r\n"),
    ],
)
def test_answer_that_is_none_is_a_failure_of_the_deployment(
    fake: FakeUpstream, headers: dict[str, str], body: bytes
) -> None:
    def answer(_: bytes) -> tuple[int, dict[str, str], bytes]:
        if headers.keys() & {"Content-Length", "Transfer-Encoding"}:
            return 200, {**headers, "Connection": "close"}, body
        return 200, headers, body

    fake.answers = answer
    error = refusal(fake.url, timeout_s=2)
    assert isinstance(error, ModelFailure) and error.status in (502, 504)
    assert len(fake.requests) == 1


def test_answer_larger_than_allowed_is_not_read_to_its_end(fake: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.upstream.MAX_ANSWER", 1 << 20)
    fake.answers = lambda _: (200, {}, b" " * (64 << 20))
    assert "too long" in refusal(fake.url).text
    fake.answers = lambda _: (500, {}, b" " * (64 << 20))
    assert "answered 500" in refusal(fake.url).text


def test_large_answers_at_once_stay_within_a_bound(fake: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.upstream.MAX_HELD", 3 << 20)
    fake.answers = lambda _: said({"outputs": ["x" * (2 << 20)]})

    async def several(upstream: Upstream) -> list[Any]:
        asked = [upstream.rest("ours", "3", BODY, {}) for _ in range(8)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert upstream._held == 0
        found.append(await upstream.rest("ours", "3", BODY, {}))
        return found

    found = use(fake.url, several)
    assert isinstance(found.pop(), Encoded)
    refused = [one for one in found if not isinstance(one, Encoded)]
    assert all(type(one) is ServingError and one.status == 503 for one in refused)


def test_silence_and_drips_end_with_504_in_time(fake: FakeUpstream) -> None:
    fake.answers = slowly(3)
    assert refusal(fake.url, timeout_s=0.3).status == 504
    with socket.create_server(("127.0.0.1", 0)) as drips:

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
            for _ in range(100):
                writer.write(b" ")
                await asyncio.sleep(0.05)
            writer.close()

        async def dripped(upstream: Upstream) -> ServingError:
            server = await asyncio.start_server(drip, sock=drips)
            with pytest.raises(ModelFailure) as refused:
                await upstream.rest("ours", "3", BODY, {})
            server.close()
            return refused.value

        port = drips.getsockname()[1]
        assert use(f"http://127.0.0.1:{port}", dripped, timeout_s=0.5).status == 504


def test_request_is_tried_twice_only_where_nobody_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await reader.read(10)
        writer.close()

    async def run() -> tuple[ServingError, ServingError, int]:
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        upstream = Upstream(UpstreamSpec(f"http://127.0.0.1:{port}", "m", None, 5))
        tries = 0
        original = upstream._try

        async def counted(*args: Any) -> Any:
            nonlocal tries
            tries += 1
            return await original(*args)

        monkeypatch.setattr(upstream, "_try", counted)
        with pytest.raises(ModelFailure) as cut:
            await upstream.rest("ours", "3", BODY, {})
        assert (tries, accepted) == (1, 1)
        server.close()
        await server.wait_closed()
        with pytest.raises(ModelFailure) as refused:
            await upstream.rest("ours", "3", BODY, {})
        await upstream.close()
        return cut.value, refused.value, tries - 1

    cut, refused, tries = asyncio.run(run())
    assert cut.status == 502
    assert (refused.status, tries) == (503, 2) and dict(refused.headers)[b"retry-after"]


def test_second_try_goes_to_the_next_address(fake: FakeUpstream) -> None:
    async def run(upstream: Upstream) -> Encoded:
        upstream._addresses = ["127.0.0.99", "127.0.0.1"]  # nobody listens on the first
        return await upstream.rest("ours", "3", BODY, {})

    for _ in range(2):
        assert json.loads(use(fake.url, run).body)["model_name"] == "ours"


def test_connections_are_kept_and_cookies_are_not(fake: FakeUpstream) -> None:
    fake.answers = lambda _: (200, {"Set-Cookie": "who=first; Path=/"}, json.dumps(ANSWER).encode())

    async def several(upstream: Upstream) -> None:
        for _ in range(10):
            await upstream.rest("ours", "3", BODY, {})

    use(fake.url, several)
    assert len(fake.connections) == 1
    assert not any("cookie" in headers for _, headers, _ in fake.requests)


def test_proxies_of_the_environment_are_not_used(fake: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(fake.url).body


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
