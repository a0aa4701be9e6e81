"""Requests that must be refused: each kind of wrong body, method and size."""

from __future__ import annotations

import json
from typing import Any

from conformance.core import EXTENSION, REQUIRED, Failed, NotOffered, expect, extension, register, required
from conformance.target import JSON, Target, document, outputs, refused
from conformance.tensors import fp32

GOOD: dict[str, Any] = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


def _without(key: str) -> dict[str, Any]:
    return {k: v for k, v in GOOD.items() if k != key}


def _inputs(*tensors: Any) -> str:
    return json.dumps({"inputs": list(tensors)})


# name -> (what it is, fixture, body). What the text leaves to the server is in _OPEN.
_WRONG: dict[str, tuple[str, str, str]] = {
    "not-json": ("a body that is not JSON", "tiny", "{not json"),
    "empty-body": ("an empty body", "tiny", ""),
    "cut-json": ("JSON that ends early", "tiny", _inputs(GOOD)[:-1]),
    "not-utf8": ("JSON that is not UTF-8", "tiny", ""),
    "array": ("a body that is no object", "tiny", "[1, 2]"),
    "inputs-missing": ("no inputs", "tiny", "{}"),
    "inputs-empty": ("an empty list of inputs", "tiny", '{"inputs": []}'),
    "inputs-object": ("inputs that are no array", "tiny", '{"inputs": {"x": [1]}}'),
    "input-number": ("an input that is no object", "tiny", '{"inputs": [1]}'),
    "name-missing": ("an input without a name", "tiny", _inputs(_without("name"))),
    "shape-missing": ("an input without a shape", "tiny", _inputs(_without("shape"))),
    "datatype-missing": ("an input without a datatype", "tiny", _inputs(_without("datatype"))),
    "data-missing": ("an input without data", "tiny", _inputs(_without("data"))),
    "data-text": ("data that is no array", "tiny", _inputs({**GOOD, "data": "abcd"})),
    "datatype-unknown": ("a datatype that does not exist", "tiny", _inputs({**GOOD, "datatype": "FP33"})),
    "datatype-other": ("a datatype that is not the model's", "tiny", _inputs({**GOOD, "datatype": "INT64"})),
    "rank": ("a shape of another rank", "tiny", _inputs({**GOOD, "shape": [4]})),
    "dimension": ("a shape with another fixed dimension", "tiny", _inputs({**GOOD, "shape": [2, 2]})),
    "dimension-negative": ("a negative dimension", "tiny", _inputs({**GOOD, "shape": [-1, 4]})),
    "dimension-fraction": ("a dimension that is no integer", "tiny", _inputs({**GOOD, "shape": [1.5, 4]})),
    "dimension-text": ("a dimension that is a text", "tiny", _inputs({**GOOD, "shape": ["1", 4]})),
    "dimension-huge": ("a shape whose size overflows 64 bits", "tiny", _inputs({**GOOD, "shape": [2**62, 4]})),
    "shape-number": ("a shape that is no array", "tiny", _inputs({**GOOD, "shape": 4})),
    "data-short": ("too few values", "tiny", _inputs({**GOOD, "data": [1, 2, 3]})),
    "data-long": ("too many values", "tiny", _inputs({**GOOD, "data": [1, 2, 3, 4, 5]})),
    "data-none": ("no values at all", "tiny", _inputs({**GOOD, "data": []})),
    "input-unknown": ("an input the model does not have", "tiny", _inputs({**GOOD, "name": "z"})),
    "input-extra": ("one input more than the model has", "tiny", _inputs(GOOD, {**GOOD, "name": "z"})),
    "input-missing": ("one input less than the model has", "add-sub", _inputs(fp32("b", [[1.0, 2.0]]))),
    "input-twice": ("the same input twice", "tiny", _inputs(GOOD, GOOD)),
    "value-text": ("a text where a number belongs", "tiny", _inputs({**GOOD, "data": [1, 2, 3, "four"]})),
    "value-object": ("an object where a number belongs", "tiny", _inputs({**GOOD, "data": [1, 2, 3, {}]})),
    "value-null": ("null where a number belongs", "tiny", _inputs({**GOOD, "data": [1, 2, 3, None]})),
    "ragged": ("rows of different length", "id-fp32", _inputs({**GOOD, "shape": [2, 2], "data": [[1, 2, 3], [4]]})),
}
_OPEN: dict[str, tuple[str, str, str]] = {
    "nested-otherwise": ("data nested otherwise than its shape", "tiny", _inputs({**GOOD, "data": [[1, 2], [3, 4]]})),
    "outputs-text": ("outputs that are no array", "tiny", '{"outputs": "label", ' + _inputs(GOOD)[1:]),
    "parameters-array": ("parameters that are no object", "tiny", '{"parameters": [], ' + _inputs(GOOD)[1:]),
    "id-number": ("an id that is no string", "tiny", '{"id": 42, ' + _inputs(GOOD)[1:]),
    "key-twice": ("the same key twice in one object", "tiny", '{"inputs": [], ' + _inputs(GOOD)[1:]),
    "nested-deeply": ("100,000 arrays in each other", "tiny", "[" * 100_000),
}


def _post(target: Target, name: str) -> Any:
    _, fixture, body = {**_WRONG, **_OPEN}[name]
    if name == "not-utf8":
        return target.post(fixture, _inputs(GOOD).replace('"x"', '"x\xff"').encode("latin-1"))
    return target.post(fixture, body)


def _refusal(name: str, level: str) -> None:
    def body(target: Target) -> str:
        evidence = refused(_post(target, name))
        document(target.infer("tiny", GOOD))
        return evidence

    what = {**_WRONG, **_OPEN}[name][0]
    register(f"refuse.{name}", level, f"{what}: 4xx with an error text, and the next request is served", body)


for _name in _WRONG:
    _refusal(_name, REQUIRED)
for _name in _OPEN:
    _refusal(_name, EXTENSION)


@extension("refuse.status-400", "every wrong body above gets 400, the status that the text calls typical")
def status_400(target: Target) -> str:
    others = {}
    for name in _WRONG:
        answer = _post(target, name)
        if answer.status_code != 400:
            others[name] = answer.status_code
    expect(not others, f"other statuses: {others}")
    return f"{len(_WRONG)} bodies, all 400"


@extension("refuse.error-only", "the error object has the error text and nothing else, as application/json")
def error_only(target: Target) -> str:
    answer = target.post("tiny", "{}")
    refused(answer)
    kind = answer.headers.get("content-type", "")
    expect(kind.split(";")[0].strip() == "application/json", f"Content-Type is {kind!r}")
    expect(list(answer.json()) == ["error"], f"body {answer.text[:100]}")
    return answer.text


@extension("refuse.no-internals", "error texts show no traceback, no file of the server and no source line")
def no_internals(target: Target) -> str:
    for name in _WRONG:
        text = _post(target, name).text
        for sign in ("Traceback", ".py", ".cc:", ".cpp", "/usr/", "/home/", "/opt/"):
            if sign in text:
                raise Failed(f"{name}: {text[max(0, text.index(sign) - 60) :][:120]}")
    return f"{len(_WRONG)} error texts"


def _method(name: str, method: str, path: str, action: str = "") -> None:
    def body(target: Target) -> str:
        whole = path or target.path("tiny", action)
        answer = target.client.request(method, whole, headers=JSON, content=b"{}" if method == "POST" else None)
        expect(answer.status_code in (404, 405), f"{answer.status_code} {answer.text[:80]}")
        return f"{answer.status_code}, Allow: {answer.headers.get('allow', 'not sent')}"

    where = path.lstrip("/") or f"v2/models/M{'/' + action if action else ''}"
    register(f"method.{name}", REQUIRED, f"{method} {where} gets 405 or 404", body)


_method("get-infer", "GET", "", "infer")
_method("delete-infer", "DELETE", "", "infer")
_method("put-infer", "PUT", "", "infer")
_method("post-metadata", "POST", "", "")
_method("post-ready", "POST", "", "ready")
_method("post-live", "POST", "/v2/health/live")
_method("post-server", "POST", "/v2")


@extension("too-large", "a body announced as a terabyte gets 413 before it is sent")
def too_large(target: Target) -> str:
    path = target.path("tiny", "infer")
    with target.wire() as wire:
        wire.send(wire.request("POST", path, b"", "Content-Type: application/json", f"Content-Length: {1 << 40}"))
        if wire.silent_for(3):
            raise NotOffered("no answer within 3 s: the server waits for the body")
        return refused(wire.answer(), (413,))


@required("refuse.many", "after all of this the server is live and serves")
def still_there(target: Target) -> str:
    expect(target.get("/v2/health/live").status_code == 200, "not live")
    found = outputs(target.infer("tiny", GOOD))["label"].tolist()
    expect(found == [2], f"label {found}")
    return "live, and label [2]"
