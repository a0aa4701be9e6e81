"""Clients that send what nobody should, slowly, endlessly or not at all: each is refused or cut, memory stays
bounded, and whoever asks properly beside them is answered."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serving.conftest import Server, wait_until
from tests.serving.load import Answer, Connection, Load, cpu_seconds, port_of, post, resident
from tests.serving.models import rows

Serve = Callable[..., Server]
GOOD = post("tiny")
BODY = GOOD.partition(b"\r\n\r\n")[2]
HEAD = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: test\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
MB = 1 << 20


@pytest.fixture(scope="module")
def server(model_folder: Path) -> Iterator[Server]:
    started = Server("--models", str(model_folder), "--max-body-mb", "1")
    yield started.wait_ready("tiny")
    started.stop()


@pytest.fixture(scope="module")
def hasty(model_folder: Path) -> Iterator[Server]:
    """A server that gives up on slow clients after a second."""
    started = Server("--models", str(model_folder), "--read-s", "1", "--keep-alive-s", "1")
    yield started.wait_ready("tiny")
    started.stop()


def connect(server: Server) -> Connection:
    return Connection(port_of(server.url))


def label(answer: Answer) -> int:
    return json.loads(answer.body)["outputs"][0]["data"][0]


@contextlib.contextmanager
def unharmed(server: Server, growth: int = 64 * MB) -> Iterator[None]:
    """A normal client is asking meanwhile, and is answered each time; memory stays near where it was."""
    pid = server.children()[0]
    before = resident(pid)
    with Load(server.url, GOOD, value=label, clients=1, pause=0.01) as load:
        wait_until(lambda: load.seen)
        yield
        count = len(load.seen)
        wait_until(lambda: len(load.seen) > count + 3)
    assert load.failures == [] and len(load.values) == 1
    assert server.children() == [pid]
    assert resident(pid) - before < growth, f"{(resident(pid) - before) / MB:.0f} MB more"


NOT_HTTP: dict[str, bytes] = {
    "length twice": HEAD + b"Content-Length: %d\r\nContent-Length: 5\r\n\r\n" % len(BODY) + BODY,
    "same length twice": HEAD + b"Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (len(BODY), len(BODY)) + BODY,
    "length, then chunked": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, then length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "space before the colon": HEAD + b"Content-Length : %d\r\n\r\n" % len(BODY) + BODY,
    "list of lengths": HEAD + b"Content-Length: %d, %d\r\n\r\n" % (len(BODY), len(BODY)) + BODY,
    "signed length": HEAD + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
    "negative length": HEAD + b"Content-Length: -5\r\n\r\n" + BODY,
    "length in hex": HEAD + b"Content-Length: 0x5\r\n\r\n" + BODY,
    "length beyond 64 bits": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding behind chunked": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "folded header": HEAD + b"Content-Length:\r\n %d\r\n\r\n" % len(BODY) + BODY,
    "bare line feeds": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: %d\n\n" % len(BODY) + BODY,
    "NUL in a header": HEAD + b"X-A: a\0b\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
    "chunk size no number": CHUNKED + b"zz\r\n",
    "chunk size beyond 64 bits": CHUNKED + b"f" * 17 + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(160),
    "a tunnel": b"CONNECT example.org:443 HTTP/1.1\r\nHost: test\r\n\r\n",
    "random bytes": b"\xff\xfe\x00\x01junk\r\n\r\n",
    "bytes beyond ASCII in the path": b"GET /v2/\xff HTTP/1.1\r\nHost: test\r\n\r\n",
    "head of 100 kB": b"GET /v2 HTTP/1.1\r\nX-A: " + b"a" * 100_000 + b"\r\n\r\n",
    "path of 100 kB": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "ten thousand headers": b"GET /v2 HTTP/1.1\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
}


@pytest.mark.parametrize("case", NOT_HTTP)
def test_connection_is_refused_once_and_closed_when_it_sends_no_proper_http(server: Server, case: str) -> None:
    with connect(server) as bad:
        bad.send(NOT_HTTP[case])
        answer = bad.read()
        assert answer.status == 400 and answer.closing
        assert list(json.loads(answer.body)) == ["error"]
        assert bad.ended() and b"HTTP/1.1" not in bad.held
    with connect(server) as good:
        assert good.ask(GOOD).status == 200


def test_invalid_requests_are_counted_and_not_logged_when_many_come(server: Server) -> None:
    before = len(server.stderr)
    for _ in range(20):
        with connect(server) as bad:
            bad.send(b"\x16\x03\x01")
            bad.send(b"\r\n\r\n")
            assert bad.ended()
    metrics = server.client.get("/metrics").text
    counted = [
        line for line in metrics.splitlines() if line.startswith('slipway_responses_total{model="",status="400"')
    ]
    assert counted and float(counted[0].split()[-1]) >= 20
    assert len(server.stderr) == before


def test_bodies_are_not_requests_when_they_look_like_known_ones(server: Server) -> None:
    with connect(server) as client:
        assert client.ask(GOOD).status == 200
        assert client.ask(GOOD).status == 200  # its head is known by now
        assert client.ask(post("tiny", GOOD)).status == 400
        # The body comes alone, and is to the byte what a known request is.
        head, _, _ = post("tiny", GOOD).partition(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n")
        time.sleep(0.1)
        client.send(GOOD)
        assert client.read().status == 400
        client.send(CHUNKED + b"%x\r\n" % len(GOOD))
        time.sleep(0.1)
        client.send(GOOD)
        time.sleep(0.1)
        client.send(b"\r\n0\r\n\r\n")
        assert client.read().status == 400
        # Only one answer for each: the next one belongs to the next request.
        assert label(client.ask(GOOD)) == label(client.ask(GOOD))
        assert client.held == b""


def test_empty_lines_are_no_known_head_when_a_request_came_behind_them(server: Server) -> None:
    with connect(server) as client, connect(server) as other:
        assert client.ask(GOOD).status == 200
        assert client.ask(b"\r\n\r\n" + GOOD).status == 200
        assert other.ask(GOOD).status == 200
        other.send(b"\r\n\r\n" + BODY)
        assert other.read().status == 400


def test_trailer_is_no_header_when_it_comes_with_the_request(server: Server) -> None:
    with connect(server) as client:
        answer = client.ask(CHUNKED + b"%x\r\n%b\r\n0\r\nX-Request-Id: behind\r\n\r\n" % (len(BODY), BODY))
        assert answer.status == 200 and answer.headers["x-request-id"] != "behind"
        assert client.ask(GOOD).status == 200


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "headers": (b"GET /v2 HTTP/1.1\r\n", b"X-A: " + b"b" * 20 + b"\r\n"),
    "one header": (b"GET /v2 HTTP/1.1\r\nX-A: ", b"b" * 30),
    "a path": (b"GET /", b"b" * 30),
    "trailers": (CHUNKED + b"1\r\n{\r\n0\r\n", b"X-A: " + b"b" * 20 + b"\r\n"),
    "one trailer": (CHUNKED + b"1\r\n{\r\n0\r\nX-A: ", b"b" * 30),
    "a chunk's extension": (CHUNKED + b"1;", b"b" * 30),
    "a chunked body": (CHUNKED, b"20\r\n" + b" " * 32 + b"\r\n"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_connection_is_cut_when_what_it_sends_has_no_end(server: Server, case: str) -> None:
    start, piece = ENDLESS[case]
    with unharmed(server, 32 * MB), connect(server) as bad, contextlib.suppress(ConnectionError):
        bad.send(start)
        for _ in range(2000):  # 60 MB, if they were taken
            bad.send(piece * 1000)
        pytest.fail("all of it was taken")


def test_requests_are_all_answered_in_turn_when_thousands_are_pipelined(server: Server) -> None:
    def asks(number: int) -> bytes:
        return b"GET /v2 HTTP/1.1\r\nX-Request-Id: %d\r\n\r\n" % number if number % 3 else GOOD

    with unharmed(server), connect(server) as client:
        threading.Thread(target=client.send, args=(post("slow") + b"".join(map(asks, range(6000))),)).start()
        assert client.read().status == 200
        for number in range(6000):
            answer = client.read()
            assert answer.status == 200
            assert not number % 3 or answer.headers["x-request-id"] == str(number)


def test_large_and_small_bodies_are_answered_in_turn_when_pipelined_by_odd_pieces(server: Server) -> None:
    many = post("tiny", {"inputs": [rows(3000)]})
    stream = b"".join(
        [GOOD, many, post("tiny", BODY, X_Request_Id="a"), many, CHUNKED + b"%x\r\n" % len(BODY) + BODY]
    ) + (b"\r\n0\r\n\r\n" + GOOD)
    for size in (37, 1023, 4099, len(stream)):
        with connect(server) as client:
            for at in range(0, len(stream), size):
                client.send(stream[at : at + size])
            counts = [len(json.loads(client.read().body)["outputs"][0]["data"]) for _ in range(6)]
            assert counts == [1, 3000, 1, 3000, 1, 1]


@pytest.mark.parametrize("request_", [GOOD, b"GET /v2 HTTP/1.1\r\n\r\n", post("tiny", {"inputs": [rows(2000)]})])
def test_client_is_cut_when_it_never_reads_its_answers(hasty: Server, request_: bytes) -> None:
    with unharmed(hasty, 48 * MB), connect(hasty) as bad:
        bad.sock.settimeout(30)
        with contextlib.suppress(ConnectionError):  # a timeout would be the server waiting for ever
            while True:
                bad.send(request_ * 100)


def test_memory_is_bounded_when_many_pipeline_behind_a_slow_request(server: Server) -> None:
    with unharmed(server, 48 * MB), contextlib.ExitStack() as open_:
        for _ in range(20):
            bad = open_.enter_context(connect(server))
            bad.sock.settimeout(0.1)
            with contextlib.suppress(TimeoutError, BlockingIOError):
                bad.send(post("slow") + b"GET /v2 HTTP/1.1\r\n\r\n" * 14_000)
        time.sleep(0.5)
    # They left in the middle of it: nothing is said of that, and nobody waits.
    assert not [line for line in server.stderr if "Traceback" in line]


SLOW: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 0),
    "half a head": (HEAD, 0),
    "no body": (HEAD + b"Content-Length: 100\r\n\r\n", 408),
    "half a body": (HEAD + b"Content-Length: 100\r\n\r\n{", 408),
    "no body, as HTTP/1.0": (HEAD.replace(b"1.1", b"1.0") + b"Content-Length: 100\r\n\r\n", 408),
    "no body where one is expected": (HEAD + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n", 408),
    "no chunk": (CHUNKED, 408),
    "no last chunk": (CHUNKED + b"1\r\n{\r\n", 408),
    "half a trailer": (CHUNKED + b"1\r\n{\r\n0\r\nX-A", 408),
    "an answered request": (GOOD, 200),
}


def test_each_is_answered_or_cut_when_it_sends_no_more(hasty: Server) -> None:
    with unharmed(hasty), contextlib.ExitStack() as open_:
        slow = {case: open_.enter_context(connect(hasty)) for case in SLOW}
        for case, (data, _) in SLOW.items():
            slow[case].send(data)
        for case, (_, status) in SLOW.items():
            client = slow[case]
            found = client.read() if status else None
            if found is not None and found.status == 100:
                found = client.read()
            assert found is None or found.status == status, (case, found)
            assert client.ended()


def test_each_is_answered_or_cut_when_it_sends_a_byte_at_a_time(hasty: Server) -> None:
    kinds = [b"GET /v2 HTTP/1.1\r\nX-A: ", HEAD + b"Content-Length: 1000\r\n\r\n", CHUNKED + b"ff\r\n", CHUNKED]
    with unharmed(hasty), contextlib.ExitStack() as open_:
        slow = [open_.enter_context(connect(hasty)) for _ in range(100)]
        for number, client in enumerate(slow):
            client.send(kinds[number % 4])
        end = time.monotonic() + 30
        while slow and time.monotonic() < end:
            for client in list(slow):
                try:
                    client.send(b"1")
                except ConnectionError:
                    slow.remove(client)
            time.sleep(0.2)
    assert slow == []


def test_large_bodies_are_refused_when_too_many_come_at_once(server: Server) -> None:
    # A tenth of what is announced comes at first: it has to count, or many clients hold it for nothing.
    data = post("tiny", b"x" * 900_000, X_Number="1")
    part = 200_000
    with unharmed(server, 100 * MB):  # some of it for the few that are read at a time
        clients = [connect(server) for _ in range(100)]
        senders = [threading.Thread(target=client.send, args=(data[:part],)) for client in clients]
        for thread in senders:
            thread.start()
        for thread in senders:
            thread.join()
        time.sleep(0.3)
        statuses = []
        for client in clients:
            client.send(data[part:])
            statuses.append(client.read())
        refused = [answer for answer in statuses if answer.status == 503]
        assert {answer.status for answer in statuses} == {400, 503} and len(refused) >= 75
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        # Nothing is left counted, and the connections go on.
        for client in clients:
            assert client.ask(data).status == 400
            assert client.ask(GOOD).status == 200
            client.close()


BODIES: dict[str, bytes] = {
    "deep": b'{"inputs":' * 10_000 + b"1" + b"}" * 10_000,
    "deep inside": BODY[:-1] + b',"parameters":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
    "many keys": b"{" + b",".join(b'"k%d":1' % n for n in range(70_000)) + b"}",
    "many keys of parameters": BODY[:-1] + b',"parameters":{' + b",".join(b'"%d":1' % n for n in range(70_000)) + b"}}",
    "a huge number": BODY.replace(b"0.5", b"9" * 500_000, 1),
    "a huge fraction": BODY.replace(b"0.5", b"0." + b"9" * 500_000 + b"e999", 1),
    "a huge string": BODY.replace(b"0.5", b'"' + b"a" * 900_000 + b'"', 1),
    "a huge name": BODY.replace(b'"x"', b'"' + b"x" * 900_000 + b'"', 1),
    "escapes": BODY.replace(b'"x"', b'"' + b"\\u0000" * 100_000 + b'"', 1),
    "gzip": bytes.fromhex("1f8b0800000000000003") + bytes(500),
}


@pytest.mark.parametrize("case", BODIES)
def test_body_is_refused_when_it_is_only_meant_to_hurt(server: Server, case: str) -> None:
    with unharmed(server), connect(server) as client:
        for headers in ({}, {"X_Request_Id": "long-way"}):
            answer = client.ask(post("tiny", BODIES[case], **headers))
            known = case == "many keys of parameters" and answer.status == 200  # free to have them
            assert known or answer.status == 400, answer
            assert len(answer.body) < 1000
        if case == "gzip":
            assert client.ask(post("tiny", BODIES[case], Content_Encoding="gzip")).status == 415


def test_half_open_connections_are_let_go_when_their_clients_vanish(hasty: Server) -> None:
    (pid,) = hasty.children()
    before = len(os.listdir(f"/proc/{pid}/fd"))
    clients = [connect(hasty) for _ in range(200)]
    for number, client in enumerate(clients):
        client.send(GOOD[: number % len(GOOD)])
    for client in clients[::2]:
        # Cut without a word, as when a machine goes away and its router resets what is left.
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    with unharmed(hasty):
        wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before + 5, 30)
    for client in clients[1::2]:
        client.close()


def test_server_answers_again_when_it_had_run_out_of_descriptors(model_folder: Path, serve: Serve) -> None:
    server = serve("--models", str(model_folder)).wait_ready("tiny")
    (pid,) = server.children()
    used = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 20, used + 20))
    kept = connect(server)
    assert kept.ask(GOOD).status == 200
    crowd: list[Connection] = []
    for _ in range(100):
        with contextlib.suppress(ConnectionError):
            crowd.append(connect(server))
    # The ones it has are served, and it does not spin over the ones it cannot take.
    began, spent = time.monotonic(), cpu_seconds(pid)
    while time.monotonic() - began < 2:
        assert kept.ask(GOOD).status == 200
        time.sleep(0.1)
    assert cpu_seconds(pid) - spent < 1.2
    for client in crowd:
        client.close()

    def again() -> bool:
        with contextlib.suppress(ConnectionError), connect(server) as client:
            return client.ask(GOOD).status == 200
        return False

    wait_until(again)
    assert server.children() == [pid]
