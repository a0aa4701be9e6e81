"""The client of another V2 server, against one that answers well or badly: statuses, limits, retries."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from typing import Any

import pytest

from serving.call import ModelFailure
from serving.document import UpstreamSpec
from serving.protocol.encode import Encoded
from serving.protocol.errors import BadInput, ServingError
from serving.upstream import Upstream
from tests.serving.fake_upstream import ANSWER, BODY, FakeUpstream, ask, refusal, slowly, use


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
