"""HTTP/1.1 under the protocol: kept connections, pipelining, Expect, HEAD, chunked bodies."""

from __future__ import annotations

import gzip
import json

from conformance.core import NotOffered, expect, extension, required
from conformance.target import Target, document, refused
from conformance.tensors import fp32
from conformance.wire import Wire

_TYPE = "Content-Type: application/json"


def _body(value: float = 1.0) -> bytes:
    return json.dumps({"id": f"r{value:g}", "inputs": [fp32("x", [value])]}).encode()


def _good(wire: Wire, target: Target, value: float = 1.0) -> bytes:
    return wire.request("POST", target.path("vector", "infer"), _body(value), _TYPE)


def _after(name: str, says: str, path: str, body: bytes) -> None:
    @required(f"http.keep-alive.{name}", f"the connection serves on after {says}")
    def check(target: Target) -> str:
        with target.wire() as wire:
            whole = target.path("vector", "infer") if path == "infer" else path
            wire.send(wire.request("POST", whole, body, _TYPE))
            first = wire.answer()
            expect(first.status_code >= 400, f"{first.status_code} {first.text[:80]}")
            if first.headers.get("connection", "").lower() == "close":
                return f"{first.status_code} and the server says that it closes"
            wire.send(_good(wire, target))
            document(wire.answer())
        return f"{first.status_code}, then 200 on the same connection"


_after("400", "a refused body", "infer", b"{not json")
_after("404", "an unknown model", "/v2/models/no-such-model/infer", _body())
_after("404-large", "an unknown model with a body of 1 MiB", "/v2/models/no-such-model/infer", b" " * (1 << 20))


@required("http.keep-alive", "several requests are served on one connection")
def keep_alive(target: Target) -> str:
    with target.wire() as wire:
        for value in (1.0, 2.0, 3.0):
            wire.send(_good(wire, target, value))
            expect(document(wire.answer()).get("id") == f"r{value:g}", "the answer of another request")
    return "3 requests"


@required("http.pipelining", "requests sent without waiting are answered in their order")
def pipelining(target: Target) -> str:
    with target.wire() as wire:
        wire.send(b"".join(_good(wire, target, value) for value in (1.0, 2.0, 3.0, 4.0)))
        found = [document(wire.answer()).get("id") for _ in range(4)]
    expect(found == ["r1", "r2", "r3", "r4"], f"answers {found}")
    return "4 in order"


@required("http.pipelining.error", "a refused request among pipelined ones does not disturb the others")
def pipelining_error(target: Target) -> str:
    with target.wire() as wire:
        bad = wire.request("POST", target.path("vector", "infer"), b"{", _TYPE)
        wire.send(_good(wire, target, 1.0) + bad + _good(wire, target, 3.0))
        found = [wire.answer() for _ in range(3)]
    statuses = [answer.status_code for answer in found]
    expect(statuses[0] == statuses[2] == 200 and statuses[1] >= 400, f"statuses {statuses}")
    expect(document(found[2]).get("id") == "r3", "the last answer is another request's")
    return f"statuses {statuses}"


@extension("http.pipelining.slow", "an answer that takes long is not overtaken by a quick one behind it")
def pipelining_slow(target: Target) -> str:
    with target.wire() as wire:
        slow = wire.request("POST", target.path("slow", "infer"), _body(1.0), _TYPE)
        wire.send(slow + _good(wire, target, 2.0))
        found = [document(wire.answer()).get("id") for _ in range(2)]
    expect(found == ["r1", "r2"], f"answers {found}")
    return "slow, then quick"


@required("http.expect", "Expect: 100-continue gets 100 (or the final answer), and the body is served")
def expect_continue(target: Target) -> str:
    body = _body()
    with target.wire() as wire:
        path = target.path("vector", "infer")
        wire.send(wire.request("POST", path, b"", _TYPE, "Expect: 100-continue", f"Content-Length: {len(body)}"))
        if wire.silent_for(2):
            raced = "no 100 within 2 s"
        else:
            first = wire.answer()
            expect(first.status_code == 100, f"{first.status_code} {first.text[:80]}")
            raced = "100"
        wire.send(body)
        document(wire.answer())
    expect(raced == "100", f"{raced}, though the body was served when it came unasked")
    return "100, then 200"


def _head(name: str, path: str, fixture: str | None = None) -> None:
    @required(f"http.head.{name}", f"HEAD {path or 'v2/models/M'} is answered without a body, whatever its status")
    def check(target: Target) -> str:
        with target.wire() as wire:
            wire.send(wire.request("HEAD", target.path(fixture) if fixture else path))
            answer = wire.answer(head_only=True)
            extra = wire.rest()
            expect(not extra, f"{answer.status_code} with {len(extra)} bytes of body")
            expect(answer.status_code in (200, 400, 404, 405, 501), f"{answer.status_code}")
            return f"{answer.status_code}, Content-Length {answer.headers.get('content-length')}, no body"


_head("live", "/v2/health/live")
_head("metadata", "", "tiny")


@extension("http.head.status", "HEAD of health and metadata has the status of GET")
def head_status(target: Target) -> str:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2", target.path("tiny")):
        answer = target.client.head(path)
        expect(answer.status_code == 200, f"{path}: {answer.status_code}")
    return "200 four times"


@required("http.chunked", "a body with Transfer-Encoding: chunked is read")
def chunked(target: Target) -> str:
    body = _body()
    pieces = [body[:10], body[10:11], body[11:]]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    with target.wire() as wire:
        wire.send(wire.request("POST", target.path("vector", "infer"), framed, _TYPE, "Transfer-Encoding: chunked"))
        document(wire.answer())
    return "3 chunks, 200"


@required("http.trickle", "a request that comes in small pieces is read like a whole one")
def trickle(target: Target) -> str:
    with target.wire() as wire:
        data = _good(wire, target)
        for at in range(0, len(data), 40):
            wire.send(data[at : at + 40])
        document(wire.answer())
    return "200"


@required("http.header-case", "header names are read in any case")
def header_case(target: Target) -> str:
    with target.wire() as wire:
        body = _body()
        line = f"cOnTeNt-LeNgTh: {len(body)}"
        wire.send(wire.request("POST", target.path("vector", "infer"), body, "CONTENT-TYPE: application/json", line))
        document(wire.answer())
    return "200"


@extension("http.close", "Connection: close is honoured")
def close(target: Target) -> str:
    answer = target.client.get("/v2/health/live", headers={"Connection": "close"})
    expect(answer.status_code == 200, f"{answer.status_code}")
    return f"200, Connection: {answer.headers.get('connection', 'not sent')}"


@extension("http.gzip", "a gzipped body is read, or refused with 415 or 400")
def gzipped(target: Target) -> str:
    answer = target.post("vector", gzip.compress(_body()), Content_Encoding="gzip")
    if answer.status_code != 200:
        raise NotOffered(f"compressed bodies are refused: {refused(answer, (400, 415))}")
    document(answer)
    return "200"


@extension("http.percent", "a percent-encoded model name means the same model")
def percent(target: Target) -> str:
    name = target.model("tiny")
    answer = target.get(f"/v2/models/%{ord(name[0]):02x}{name[1:]}")
    expect(answer.status_code == 200, f"{answer.status_code} {answer.text[:80]}")
    return "200"


@extension("http.query", "a query string after the path is passed over")
def query(target: Target) -> str:
    answer = target.get("/v2/health/live?a=1")
    expect(answer.status_code == 200, f"{answer.status_code}")
    return "200"
