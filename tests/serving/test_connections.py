"""What one connection may look like: requests in any pieces, behind one another, of any manner; one answer for each."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest

from tests.serving.conftest import Server, wait_until
from tests.serving.models import rows
from tests.serving.test_upstream import metric

INFER = "/v2/models/tiny/infer"


def body_of(*tensors: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(tensors or (rows(),)), **more}).encode()


def request(body: bytes = b"", path: str = INFER, method: str = "POST", version: str = "1.1", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "host: a"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body and "transfer_encoding" not in headers and "content_length" not in headers:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    def __init__(self, server: Server) -> None:
        address = httpx.URL(server.url)
        self.socket = socket.create_connection((address.host, address.port), 20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes, pause: float = 0.02) -> Connection:
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(pause)
            self.socket.sendall(piece)
        return self

    def more(self) -> bool:
        try:
            piece = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self.read += piece
        return bool(piece)

    def answer(self, bodyless: bool = False) -> tuple[int, dict[str, str], bytes]:
        """The next answer, whole."""
        while b"\r\n\r\n" not in self.read:
            assert self.more(), f"closed after {self.read!r}"
        head, _, self.read = self.read.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        pairs = [line.partition(": ") for line in lines]
        headers = {name.lower(): value for name, _, value in pairs}
        assert len(headers) == len(pairs), "a header is there twice"
        size = 0 if bodyless or first.split()[1] == "100" else int(headers["content-length"])
        while len(self.read) < size:
            assert self.more()
        body, self.read = self.read[:size], self.read[size:]
        return int(first.split()[1]), headers, body

    def status(self) -> int:
        return self.answer()[0]

    def closed(self) -> bool:
        """Whether nothing more comes before the server closes."""
        while self.more():
            pass
        return not self.read


@pytest.fixture
def connect(standalone: Server) -> Iterator[Callable[[], Connection]]:
    made: list[Connection] = []

    def start() -> Connection:
        made.append(Connection(standalone))
        return made[-1]

    yield start
    for connection in made:
        connection.socket.close()
    # Whatever was done: nothing is left behind, and the next client is served.
    wait_until(lambda: metric(standalone, "slipway_inflight_requests{") == 0, seconds=60)
    assert standalone.infer("tiny", rows()).status_code == 200


Connect = Callable[[], Connection]
CHUNKED = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body_of()[:5], len(body_of()) - 5, body_of()[5:])


@pytest.mark.parametrize(
    "whole",
    [
        request(body_of()),
        request(body_of(), x_request_id="mine"),
        request(CHUNKED, transfer_encoding="chunked"),
        request(path="/v2/models/tiny", method="GET"),
    ],
    ids=["usual", "own id", "chunked", "metadata"],
)
def test_request_is_answered_when_it_comes_in_two_pieces_cut_anywhere(connect: Connect, whole: bytes) -> None:
    connection = connect()
    connection.send(whole)
    status, _, expected = connection.answer()
    assert status == 200
    for at in range(1, len(whole)):
        connection.send(whole[:at], whole[at:], pause=0.002)
        assert connection.answer()[::2] == (200, expected), at


def test_request_is_answered_when_it_comes_byte_by_byte(connect: Connect) -> None:
    connection = connect()
    whole = request(body_of())
    for _ in range(2):
        connection.send(*(whole[i : i + 1] for i in range(len(whole))), pause=0.0005)
        assert connection.status() == 200


def test_requests_of_all_kinds_in_one_packet_are_answered_in_order(connect: Connect) -> None:
    kinds: list[tuple[bytes, int]] = [
        (request(body_of(), x_request_id="0"), 200),
        (request(path="/v2/models/tiny", method="GET", x_request_id="1"), 200),
        (request(body_of(rows(2)), x_request_id="2"), 200),
        (request(b"{", x_request_id="3"), 400),
        (request(body_of(rows()), "/v2/models/slow/infer", x_request_id="4"), 200),
        (request(body_of(rows()), "/v2/models/nobody/infer", x_request_id="5"), 404),
        (request(CHUNKED, transfer_encoding="chunked", x_request_id="6"), 200),
        (request(path="/nowhere", method="GET", x_request_id="7"), 404),
        (request(body_of(rows()), x_request_id="8"), 200),
    ]
    for order in (kinds, kinds[::-1], kinds[4:] + kinds[:4]):
        connection = connect()
        connection.send(b"".join(text for text, _ in order))
        for text, status in order:
            got, headers, _ = connection.answer()
            assert got == status and f"x-request-id: {headers['x-request-id']}\r\n".encode() in text
    connection.send(request(body_of()))
    assert connection.status() == 200


def test_known_request_twice_in_one_packet_is_answered_twice(connect: Connect) -> None:
    connection, whole = connect(), request(body_of())
    connection.send(whole)
    expected = connection.answer()[2]
    for pieces in ((whole * 2,), (whole + whole[:50], whole[50:]), (whole[:-5], whole[-5:] + whole), (whole, whole)):
        connection.send(*pieces)
        assert [connection.answer()[2] for _ in range(2)] == [expected] * 2


@pytest.mark.parametrize("way", ["short", "long", "chunked"])
def test_known_request_inside_a_body_is_no_request(connect: Connect, way: str) -> None:
    connection, known = connect(), request(body_of())
    connection.send(known)
    assert connection.status() == 200
    # As a packet of its own in the middle of a body, where it would be taken for one if anything could make it so.
    if way == "chunked":
        start = b"%x\r\n" % (2 * len(known))
        connection.send(request(start, transfer_encoding="chunked"), known, known, b"\r\n0\r\n\r\n", pause=0.05)
    else:
        path = INFER if way == "short" else "/v2/repository/index"
        connection.send(request(path=path, content_length=str(2 * len(known))), known, known, pause=0.05)
    assert connection.status() == 400
    connection.send(known)
    assert connection.status() == 200
    connection.socket.shutdown(socket.SHUT_WR)
    assert connection.closed(), "an answer too many"


@pytest.mark.parametrize(
    "headers",
    [
        "content-length: 6\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 6",
        "content-length: 6\r\ncontent-length: 7",
        "content-length: 6\r\ncontent-length: 6",
        "content-length: +6",
        "content-length: 6, 6",
        "content-length: 0x6",
        "content-length: -1",
        "content-length: 99999999999999999999999",
        "content-length : 6",
        " content-length: 6",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: xchunked",
        "x: y\ncontent-length: 6",
        "x: y\rcontent-length: 6",
        "x\x00: y",
    ],
)
def test_framing_that_could_be_read_two_ways_ends_the_connection(connect: Connect, headers: str) -> None:
    connection = connect()
    follower = request(path="/v2/health/live", method="GET")
    text = f"POST {INFER} HTTP/1.1\r\nhost: a\r\n{headers}\r\n\r\n".encode()
    connection.send(text + b"0\r\n\r\nX" + follower)
    status, told, _ = connection.answer()
    assert status == 400 and told["connection"] == "close"
    assert connection.closed(), "what follows must not be answered"


@pytest.mark.parametrize(
    "text",
    [
        request(body_of(), connection="close"),
        request(body_of(), version="1.0"),
        request(body_of(), version="1.0", connection="keep-alive"),
        request(b"{", connection="close"),
        request(CHUNKED, transfer_encoding="chunked", connection="close"),
        request(path="/v2", method="GET", version="1.0"),
        request(path="/v2", method="GET", connection="close"),
    ],
)
def test_connection_ends_after_an_answer_when_the_client_says_so(connect: Connect, text: bytes) -> None:
    for _ in range(2):  # the head is known the second time
        connection = connect()
        connection.send(text)
        status, headers, _ = connection.answer()
        assert status in (200, 400) and headers["connection"] == "close"
        assert connection.closed()


def test_body_is_asked_for_when_the_client_waits_for_that(connect: Connect) -> None:
    connection = connect()
    for _ in range(2):
        connection.send(request(expect="100-continue", content_length=str(len(body_of()))))
        assert connection.answer()[0] == 100
        connection.send(body_of())
        assert connection.status() == 200
    connection.send(request(path="/v2/models/nobody/infer", expect="100-continue", content_length="100"))
    assert connection.status() == 404, "refused before its body is asked for"


@pytest.mark.parametrize("path", ["/v2", "/v2/models/tiny", "/v2/models/tiny/ready", "/metrics", "/nowhere", INFER])
def test_head_has_the_same_headers_and_no_body(connect: Connect, path: str) -> None:
    connection = connect()
    connection.send(request(path=path, method="HEAD"))
    status, headers, _ = connection.answer(bodyless=True)
    assert status == {"/nowhere": 404, INFER: 405}.get(path, 200) and int(headers["content-length"]) > 0
    connection.send(request(path="/v2", method="GET"))
    status, _, body = connection.answer()
    assert status == 200 and json.loads(body)["name"] == "slipway"


ERRORS = {
    "no json": (request(b"{"), 400),
    "empty": (request(content_length="0"), 400),
    "tensor": (request(body_of({**rows(), "datatype": "INT64"})), 400),
    "binary size": (request(body_of(), inference_header_content_length="9999"), 400),
    "binary size is none": (request(body_of(), inference_header_content_length="x"), 400),
    "model": (request(body_of(), "/v2/models/nobody/infer"), 404),
    "version": (request(body_of(), "/v2/models/tiny/versions/99/infer"), 404),
    "path": (request(body_of(), "/v3/nowhere"), 404),
    "method": (request(body_of(), "/v2"), 405),
    "method of infer": (request(method="GET"), 405),
    "put": (request(body_of(), method="PUT"), 405),
    "compressed": (request(body_of(), content_encoding="gzip"), 415),
    "model fails": (
        request(body_of({"name": "i", "shape": [1], "datatype": "INT64", "data": [99]}), "/v2/models/lookup/infer"),
        500,
    ),
    "slightly too large": (request(b" " * (5 << 20)), 413),
    "too large by chunks": (
        request(b"%x\r\n%b\r\n0\r\n\r\n" % (5 << 20, b" " * (5 << 20)), transfer_encoding="chunked"),
        413,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_connection_goes_on_or_is_ended_in_order_after_an_error(connect: Connect, case: str) -> None:
    text, status = ERRORS[case]
    connection = connect()
    connection.send(request(body_of()))
    expected = connection.answer()[2]
    for _ in range(2):
        try:
            connection.send(text)
        except (BrokenPipeError, ConnectionResetError):
            assert status == 413
            return
        got, headers, body = connection.answer()
        assert got == status and json.loads(body)["error"]
        if headers.get("connection") == "close":
            assert status == 413
            return
        connection.send(request(body_of()))
        assert connection.answer()[::2] == (200, expected)


@pytest.mark.parametrize("part", [0, 10, 60, -30, -1, None])
@pytest.mark.parametrize("model", ["tiny", "slow"])
def test_half_closed_connection_is_answered_or_ended(connect: Connect, part: int | None, model: str) -> None:
    connection = connect()
    connection.send(request(body_of(), f"/v2/models/{model}/infer")[:part])
    connection.socket.shutdown(socket.SHUT_WR)
    while connection.more():
        pass
    if part is None and model == "tiny":
        assert connection.status() == 200
    assert connection.closed()


def test_client_that_leaves_before_its_answer_takes_nothing_along(connect: Connect, standalone: Server) -> None:
    for _ in range(8):
        connection = connect()
        connection.send(request(body_of(), "/v2/models/slow/infer") * 3)
        connection.socket.close()
    with httpx.Client(base_url=standalone.url, timeout=60) as client:
        assert client.post(INFER, json={"inputs": [rows()]}).status_code == 200


def test_large_binary_body_is_the_same_in_any_pieces(connect: Connect) -> None:
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    head = json.dumps({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 100_000],
                    "parameters": {"binary_data_size": values.nbytes}}],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    told = {"inference_header_content_length": str(len(head))}
    whole = request(head + values.tobytes(), "/v2/models/id-fp32/infer", **told)
    connection = connect()
    for cuts in ([], [1000], [len(whole) - 1], list(range(0, len(whole), 65_536)), [len(whole) // 2]):
        places = [0, *(cut for cut in cuts if cut), len(whole)]
        connection.send(*(whole[a:b] for a, b in pairwise(places)), pause=0.005)
        status, _, body = connection.answer()
        assert status == 200 and body.endswith(values.tobytes())
