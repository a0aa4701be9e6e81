"""Hostile and mistaken requests: a 4xx that names the input, and the next request works."""

from __future__ import annotations

import json
import socket
from typing import Any

import numpy as np
import pytest

from serving.protocol.envelope import parse
from serving.protocol.errors import ServingError
from tests.serving.conftest import Server
from tests.serving.models import rows


def fp32(data: Any, shape: Any = (1, 4), **more: Any) -> dict[str, Any]:
    return {"name": "x", "shape": list(shape), "datatype": "FP32", "data": data, **more}


GOOD = [1, 2, 3, 4]

NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "too few values": ("tiny", fp32([1, 2, 3])),
    "too many values": ("tiny", fp32([1, 2, 3, 4, 5])),
    "no values": ("tiny", fp32([])),
    "wrong rank": ("tiny", fp32(GOOD, (4,))),
    "wrong fixed dimension": ("tiny", fp32(GOOD, (2, 2))),
    "negative dimension": ("tiny", fp32(GOOD, (-1, 4))),
    "huge dimension": ("tiny", fp32(GOOD, (2**62, 4))),
    "overflowing product": ("id-fp32", fp32(GOOD, (2**63, 2**63))),
    "huge beside a zero": ("id-fp32", fp32([], (0, 2**62))),
    "float dimension": ("tiny", fp32(GOOD, (1.0, 4))),
    "boolean dimension": ("tiny", fp32(GOOD, (True, 4))),
    "text dimension": ("tiny", fp32(GOOD, ("1", 4))),
    "many dimensions": ("tiny", fp32(GOOD, (1,) * 1000)),
    "shape no array": ("tiny", {**fp32(GOOD), "shape": "1,4"}),
    "shape missing": ("tiny", {"name": "x", "datatype": "FP32", "data": GOOD}),
    "datatype missing": ("tiny", {"name": "x", "shape": [1, 4], "data": GOOD}),
    "datatype unknown": ("tiny", {**fp32(GOOD), "datatype": "FP33"}),
    "datatype of another kind": ("tiny", {**fp32(GOOD), "datatype": "INT64"}),
    "data missing": ("tiny", {"name": "x", "shape": [1, 4], "datatype": "FP32"}),
    "data no array": ("tiny", fp32("abcd")),
    "null value": ("tiny", fp32([1, 2, 3, None])),
    "boolean value": ("tiny", fp32([1, 2, 3, True])),
    "text value": ("tiny", fp32([1, 2, 3, "4"])),
    "object value": ("tiny", fp32([1, 2, 3, {"a": 4}])),
    "beyond float32": ("tiny", fp32([1, 2, 3, 1e39])),
    "beyond float16": ("id-fp16", {**fp32([1, 2, 3, 70000]), "datatype": "FP16"}),
    "ragged": ("tiny", fp32([[1, 2, 3], [4]], (2, 2))),
    "ragged of the right size": ("id-fp32", fp32([[1], [2, 3, 4]], (2, 2))),
    "nested otherwise": ("id-fp32", fp32([[1, 2, 3, 4]], (2, 2))),
    "nested inside flat": ("id-fp32", fp32([1, [2], 3, 4], (2, 2))),
    "empties inside flat": ("id-fp32", fp32([1, [], [2, 3], 4], (2, 2))),
    "nested leaf": ("id-fp32", fp32([[1, [2]], [3, 4]], (2, 2))),
    "nested too deep": ("id-fp32", fp32([[[1], [2]], [[3], [4]]], (2, 2))),
    "float in int": ("id-int32", {**fp32([1, 2, 3, 4.5]), "datatype": "INT32"}),
    "whole float in int": ("id-int64", {**fp32([1, 2, 3, 4.0]), "datatype": "INT64"}),
    "boolean in int": ("id-int64", {**fp32([1, 2, 3, True]), "datatype": "INT64"}),
    "beyond int8": ("id-int8", {**fp32([1, 2, 3, 128]), "datatype": "INT8"}),
    "beyond int64": ("id-int64", {**fp32([1, 2, 3, 2**63]), "datatype": "INT64"}),
    "beyond uint64": ("id-uint64", {**fp32([1, 2, 3, 2**64]), "datatype": "UINT64"}),
    "negative in unsigned": ("id-uint8", {**fp32([1, 2, 3, -1]), "datatype": "UINT8"}),
    "negative in uint64": ("id-uint64", {**fp32([1, 2, 3, -1]), "datatype": "UINT64"}),
    "number in bool": ("id-bool", {**fp32([1, 0, 1, 0]), "datatype": "BOOL"}),
    "number in bytes": ("id-bytes", {**fp32([1, "b", "c", "d"]), "datatype": "BYTES"}),
    "key twice in parameters": ("tiny", fp32(GOOD, parameters={"binary_data_size": "16"})),
    "data and binary": ("tiny", fp32(GOOD, parameters={"binary_data_size": 16})),
    "parameters no object": ("tiny", fp32(GOOD, parameters=[])),
}


def refused(server: Server, answer: Any, name: str | None = "x", status: int = 400) -> str:
    assert answer.status_code == status, (answer.status_code, answer.text)
    body = answer.json()
    assert list(body) == ["error"]
    text = body["error"]
    if name:
        assert f"'{name}'" in text, text
    assert "Traceback" not in text and "/" not in text.replace("application/json", ""), text
    assert len(text) < 400
    assert server.infer("tiny", rows()).status_code == 200
    return text


@pytest.mark.parametrize("case", NAMED)
def test_tensor_is_refused_by_name_when_it_is_wrong(standalone: Server, case: str) -> None:
    model, tensor = NAMED[case]
    refused(standalone, standalone.infer(model, tensor))


def post(server: Server, text: str | bytes, model: str = "tiny", **headers: str) -> Any:
    content = text.encode() if isinstance(text, str) else text
    return server.client.post(f"/v2/models/{model}/infer", content=content, headers=headers)


def raw(data: str, datatype: str = "FP32") -> str:
    return f'{{"inputs":[{{"name":"x","shape":[1,4],"datatype":"{datatype}","data":{data}}}]}}'


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" + "0" * 400, "[NaN]"])
@pytest.mark.parametrize("place", ["[1,2,3,{}]", "[[1,2,3,{}]]"])
def test_number_is_refused_by_name_when_it_is_not_finite(standalone: Server, number: str, place: str) -> None:
    refused(standalone, post(standalone, raw(place.format(number))))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[]",
        "null",
        '"text"',
        "1",
        raw("[1,2,3,4]") + "x",
        raw("[1,2,3,4,]"),
        raw("[01,2,3,4]"),
        "{}",
        '{"inputs":{}}',
        '{"inputs":[]}',
        '{"inputs":[1]}',
        '{"inputs":[{}]}',
        '{"inputs":[{"name":1}]}',
        '{"id":1,"inputs":[]}',
        '{"id":"' + "a" * 2000 + '","inputs":[]}',
        '{"parameters":1,"inputs":[]}',
        '{"parameters":{"binary_data_output":1},"inputs":[]}',
        '{"inputs":[],"inputs":[]}',
        '{"outputs":{},"inputs":[]}',
        '{"outputs":[{"name":"nope"}],"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}',
        '{"outputs":[{"name":"label"},{"name":"label"}],"inputs":[]}',
        '{"outputs":[{"name":"scores","parameters":{"classification":3}}],"inputs":[]}',
        "[" * 10_000 + "]" * 10_000,
        '{"inputs":' * 10_000 + "1" + "}" * 10_000,
        "[" * 900_000,
        b'{"inputs":[{"name":"\xff"}]}',
        b"\x80\x04\x95" + b"\x00" * 50,
        '{"id":"\\ud800","inputs":[]}',
        "9" * 10_000,
    ],
)
def test_request_is_refused_when_it_is_no_inference_request(standalone: Server, text: str | bytes) -> None:
    refused(standalone, post(standalone, text), name=None)


def test_duplicate_key_is_refused_when_inside_a_tensor(standalone: Server) -> None:
    text = '{"inputs":[{"name":"x","shape":[1,4],"shape":[2,2],"datatype":"FP32","data":[1,2,3,4]}]}'
    assert "shape" in refused(standalone, post(standalone, text), name=None)


def test_nan_is_refused_when_it_is_outside_the_tensors(standalone: Server) -> None:
    refused(standalone, post(standalone, '{"parameters":{"a":NaN},' + raw("[1,2,3,4]")[1:]), name=None)


def test_inputs_are_refused_by_name_when_unknown_doubled_or_missing(standalone: Server) -> None:
    a = {"name": "a", "shape": [1], "datatype": "FP32", "data": [1]}
    refused(standalone, standalone.infer("two", a), "b")
    refused(standalone, standalone.infer("two", a, a), "a")
    refused(standalone, standalone.infer("two", a, {**a, "name": "c"}), "c")
    refused(standalone, standalone.infer("two", a, {**a, "name": "b"}, {**a, "name": "d"}), "d")


def test_request_is_refused_by_name_when_it_has_a_million_inputs(standalone: Server) -> None:
    text = '{"inputs":[' + ",".join(['{"name":"i"}'] * 250_000) + "]}"
    refused(standalone, post(standalone, text), "i")
    text = json.dumps({"inputs": [{**rows(), "name": f"i{n}"} for n in range(20_000)]})
    refused(standalone, post(standalone, text), "i0")


def test_dimension_is_refused_when_the_model_itself_disagrees(standalone: Server) -> None:
    a = {"name": "a", "shape": [2], "datatype": "FP32", "data": [1, 2]}
    b = {"name": "b", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}
    answer = standalone.infer("two", a, b)
    assert answer.status_code in (400, 500) and "Add" not in answer.text


def test_model_failure_hides_its_inside_when_an_index_is_out_of_range(standalone: Server) -> None:
    answer = standalone.infer("lookup", {"name": "i", "shape": [1], "datatype": "INT64", "data": [99]})
    assert answer.status_code in (400, 500)
    assert "Gather" not in answer.text and "onnx" not in answer.text.lower()
    good = standalone.infer("lookup", {"name": "i", "shape": [1], "datatype": "INT64", "data": [2]})
    assert good.json()["outputs"][0]["data"] == [30]


def head(size: Any, datatype: str = "FP32", shape: Any = (1, 4)) -> bytes:
    tensor = {
        "name": "x",
        "shape": list(shape),
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
    }
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize(
    ("model", "document", "blob"),
    [
        ("tiny", head(16), b"\0" * 15),
        ("tiny", head(15), b"\0" * 15),
        ("tiny", head(2**62), b"\0" * 16),
        ("tiny", head(-1), b"\0" * 16),
        ("tiny", head(1.5), b"\0" * 16),
        ("tiny", head(True), b"\0" * 16),
        ("id-bytes", head(20, "BYTES"), b"\0" * 20),
        ("id-bytes", head(8, "BYTES", (1, 1)), b"\xff\xff\xff\xff1234"),
        ("id-bytes", head(6, "BYTES", (1, 1)), b"\2\0\0\0\xff\xfe"),
        ("id-bytes", head(4, "BYTES", (2**40, 2)), b"\0" * 4),
        ("id-bool", head(4, "BOOL"), b"\0\1\2\1"),
    ],
)
def test_binary_tensor_is_refused_by_name_when_its_bytes_do_not_fit(
    standalone: Server, model: str, document: bytes, blob: bytes
) -> None:
    answer = post(standalone, document + blob, model, **{"Inference-Header-Content-Length": str(len(document))})
    refused(standalone, answer)


@pytest.mark.parametrize("length", ["999999", "-1", "x", "1e3", "9" * 30, "5"])
def test_header_length_is_refused_when_it_does_not_fit_the_body(standalone: Server, length: str) -> None:
    answer = post(standalone, head(16) + b"\0" * 16, **{"Inference-Header-Content-Length": length})
    refused(standalone, answer, name=None)


def test_trailing_bytes_are_refused_when_no_tensor_claims_them(standalone: Server) -> None:
    document = head(16)
    answer = post(standalone, document + b"\0" * 20, **{"Inference-Header-Content-Length": str(len(document))})
    refused(standalone, answer, name=None)


@pytest.mark.parametrize(("model", "size"), [("tiny", 15), ("two", 16)])
def test_raw_body_is_refused_when_it_cannot_be_the_input(standalone: Server, model: str, size: int) -> None:
    answer = post(standalone, b"\0" * size, model, **{"Inference-Header-Content-Length": "0"})
    refused(standalone, answer, name=None)


def test_body_is_refused_before_it_is_read_when_too_large(standalone: Server) -> None:
    with socket.create_connection(("127.0.0.1", int(standalone.url.rsplit(":", 1)[1]))) as sock:
        sock.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n")
        sock.settimeout(10)
        assert sock.recv(100).startswith(b"HTTP/1.1 413")
    refused(standalone, post(standalone, b"[" * (5 << 20)), name=None, status=413)


def test_chunked_body_is_refused_when_it_grows_too_large(standalone: Server) -> None:
    answer = standalone.client.post("/v2/models/tiny/infer", content=(b"[" * (1 << 20) for _ in range(5)))
    refused(standalone, answer, name=None, status=413)


def test_compressed_body_is_refused_when_sent(standalone: Server) -> None:
    refused(standalone, post(standalone, b"x", **{"Content-Encoding": "gzip"}), name=None, status=415)


@pytest.mark.parametrize("text", [b"[" * 4_100_000, b"[" + b"1," * 4_100_000 + b"1]"])
def test_json_is_refused_before_it_is_parsed_when_it_has_too_many_values(text: bytes) -> None:
    with pytest.raises(ServingError) as caught:
        parse(text, 1)
    assert caught.value.status == 413


def test_large_broken_body_is_refused_when_it_cannot_be_explained(standalone: Server) -> None:
    big = json.dumps(np.zeros(450_000).tolist())[:-1] + ",NaN]"
    refused(standalone, post(standalone, raw(big)), name=None)
