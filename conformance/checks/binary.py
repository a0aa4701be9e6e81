"""The binary tensor data extension: what must work."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from conformance.core import NotOffered, expect, extension
from conformance.target import HEADER, Target, binary_inputs, binary_outputs, document, outputs, refused
from conformance.tensors import DTYPES, fp32, pack, same, sample, unpack

ALL_BINARY = {"binary_data_output": True}
ROW = np.array([[1, 3, 2, 0]], np.float32)


def _datatype_check(datatype: str) -> None:
    @extension(f"binary.{datatype}", f"{datatype} as binary data goes in and comes back bit by bit")
    def check(target: Target) -> str:
        target.offers_binary()
        array = sample(datatype)
        inputs, blobs = binary_inputs(("x", datatype, array))
        answer = target.binary(f"id-{datatype.lower()}", inputs, blobs, parameters=ALL_BINARY)
        item, found = binary_outputs(answer)["y"]
        expect(item["datatype"] == datatype, f"datatype {item['datatype']}")
        expect("binary_data_size" in item.get("parameters", {}), f"output {item}")
        expect(same(found, array), f"sent {array.ravel().tolist()}, got {found.ravel().tolist()}")
        return f"{len(blobs[0])} bytes each way"


for _name in DTYPES:
    _datatype_check(_name)


@extension("binary.announced", "binary_tensor_data is among the server's extensions")
def announced(target: Target) -> str:
    target.offers_binary()
    expect("binary_tensor_data" in target.extensions(), f"extensions {target.extensions()}")
    return "binary_tensor_data"


@extension("binary.headers", "an answer with binary data has Inference-Header-Content-Length and octet-stream")
def headers(target: Target) -> str:
    target.offers_binary()
    answer = target.infer("tiny", fp32("x", ROW), parameters=ALL_BINARY)
    binary_outputs(answer)
    kind = answer.headers.get("content-type", "")
    expect(kind == "application/octet-stream", f"Content-Type is {kind!r}")
    expect(int(answer.headers["content-length"]) == len(answer.content), "Content-Length is off")
    return f"{kind}, {HEADER} {answer.headers[HEADER]} of {len(answer.content)}"


@extension("binary.json-out", "binary data in and JSON out: the answer is plain application/json")
def json_out(target: Target) -> str:
    target.offers_binary()
    answer = target.binary("tiny", *binary_inputs(("x", "FP32", ROW)))
    expect(HEADER not in answer.headers, f"{HEADER} in an answer without binary data")
    expect(answer.headers.get("content-type", "").split(";")[0] == "application/json", "not application/json")
    document(answer)
    return str(outputs(answer)["scores"].tolist())


@extension("binary.json-in", "JSON data in and binary data out")
def json_in(target: Target) -> str:
    target.offers_binary()
    _, found = binary_outputs(target.infer("tiny", fp32("x", ROW), parameters=ALL_BINARY))["scores"]
    expect(found.tolist() == [[1, 3, 2]], f"{found.tolist()}")
    return str(found.tolist())


@extension("binary.two-inputs", "two binary inputs are told apart by their sizes, in the order of the JSON")
def two_inputs(target: Target) -> str:
    target.offers_binary()
    pair = (("b", "FP32", np.array([[1, 2]], np.float32)), ("a", "INT32", np.array([[5, 7]], np.int32)))
    found = outputs(target.binary("add-sub", *binary_inputs(*pair)))
    expect(found["sum"].tolist() == [[6, 9]] and found["diff"].tolist() == [[4, 5]], f"{found}")
    return "sum [[6,9]], diff [[4,5]]"


@extension("binary.mixed", "one input as binary data beside one as JSON")
def mixed(target: Target) -> str:
    target.offers_binary()
    inputs, blobs = binary_inputs(("a", "INT32", np.array([[5, 7]], np.int32)))
    for both in ([*inputs, fp32("b", [[1, 2]])], [fp32("b", [[1, 2]]), *inputs]):
        found = outputs(target.binary("add-sub", both, blobs))
        expect(found["sum"].tolist() == [[6, 9]], f"{found}")
    return "in either order"


def _output_choice(
    name: str, says: str, top: dict[str, Any], wanted: dict[str, dict[str, Any]], binary: set[str]
) -> None:
    @extension(f"binary.output.{name}", says)
    def check(target: Target) -> str:
        target.offers_binary()
        asked = [{"name": key, "parameters": value} if value else {"name": key} for key, value in wanted.items()]
        found = binary_outputs(target.infer("tiny", fp32("x", ROW), outputs=asked, parameters=top))
        got = {key for key, (item, _) in found.items() if "binary_data_size" in item.get("parameters", {})}
        expect(got == binary, f"binary: {sorted(got)}, not {sorted(binary)}")
        expect(found["label"][1].tolist() == [1] and found["scores"][1].tolist() == [[1, 3, 2]], "wrong values")
        return f"binary: {', '.join(sorted(got))}"


_output_choice(
    "one",
    "binary_data on one output leaves the other as JSON",
    {},
    {"label": {}, "scores": {"binary_data": True}},
    {"scores"},
)
_output_choice(
    "override",
    "binary_data false on one output wins over binary_data_output",
    ALL_BINARY,
    {"label": {"binary_data": False}, "scores": {}},
    {"scores"},
)
_output_choice(
    "order",
    "binary outputs lie in the order of the JSON, also when they were asked for in another",
    {},
    {"scores": {"binary_data": True}, "label": {"binary_data": True}},
    {"scores", "label"},
)


@extension("binary.not-finite", "NaN, infinities, -0.0 and subnormal numbers pass bit by bit")
def not_finite(target: Target) -> str:
    target.offers_binary()
    array = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32)
    inputs, blobs = binary_inputs(("x", "FP32", array))
    _, found = binary_outputs(target.binary("vector", inputs, blobs, parameters=ALL_BINARY))["y"]
    expect(found.tobytes() == blobs[0], f"{found.tolist()}")
    return str(found.tolist())


@extension("binary.unaligned", "data after a JSON part of any length is read right")
def unaligned(target: Target) -> str:
    target.offers_binary()
    for padding in range(8):
        inputs, blobs = binary_inputs(("x", "FP64", sample("FP64")))
        found = outputs(target.binary("id-fp64", inputs, blobs, id="i" * padding))["y"]
        expect(same(found, sample("FP64")), f"wrong values with {padding} more bytes of JSON")
    return "8 lengths"


@extension("binary.zero-size", "a tensor with a dimension of 0 has 0 bytes of binary data")
def zero_size(target: Target) -> str:
    target.offers_binary()
    inputs, blobs = binary_inputs(("x", "FP32", np.zeros((0, 4), np.float32)))
    item, found = binary_outputs(target.binary("empty", inputs, blobs, parameters=ALL_BINARY))["y"]
    expect(found.shape == (0, 4), f"shape {found.shape}")
    return str(item)


@extension("binary.bytes-not-utf8", "BYTES that are not UTF-8 come back as sent, or are refused with a 4xx")
def bytes_not_utf8(target: Target) -> str:
    target.offers_binary()
    array = np.array([[b"\xff\xfe", b"ok"]], dtype=object)
    answer = target.binary("id-bytes", *binary_inputs(("x", "BYTES", array)), parameters=ALL_BINARY)
    if answer.status_code != 200:
        return refused(answer)
    found = binary_outputs(answer)["y"][1]
    expect(same(found, array), f"sent {array.tolist()}, got {found.tolist()}")
    return str(found.tolist())


@extension("binary.large", "8 MiB of binary data (or what the server allows) go in and come back")
def large(target: Target) -> str:
    target.offers_binary()
    array = np.arange((8 << 20) // 4, dtype=np.float32)
    answer = target.binary("vector", *binary_inputs(("x", "FP32", array)), parameters=ALL_BINARY)
    if answer.status_code == 413:
        raise NotOffered(f"the server allows less: {refused(answer)}")
    expect(np.array_equal(binary_outputs(answer)["y"][1], array), "values differ")
    return f"{len(answer.content)} bytes back"


def _raw(target: Target, fixture: str, body: bytes) -> Any:
    return target.post(fixture, body, Inference_Header_Content_Length="0", Content_Type="application/octet-stream")


@extension("binary.raw", "a body of one tensor alone (header length 0) is read, and the outputs are binary")
def raw(target: Target) -> str:
    target.offers_binary()
    array = np.array([1, 2, 3], np.float32)
    item, found = binary_outputs(_raw(target, "vector", pack("FP32", array)))["y"]
    expect(same(found, array), f"{found.tolist()}")
    expect("binary_data_size" in item.get("parameters", {}), f"output {item} is not binary")
    return f"shape {item['shape']}"


@extension("binary.raw-bytes", "a raw body for a BYTES input of shape [1] is its one element")
def raw_bytes(target: Target) -> str:
    target.offers_binary()
    answer = _raw(target, "word", b"a raw text")
    expect(answer.status_code == 200, f"{answer.status_code} {answer.text[:80]}")
    size = int(answer.headers[HEADER])
    item = json.loads(answer.content[:size])["outputs"][0]
    found = unpack("BYTES", item["shape"], answer.content[size:])
    expect(found.tolist() == [b"a raw text"], f"{found.tolist()}")
    return str(found.tolist())


@extension("binary.raw-two-inputs", "a raw body for a model with two inputs is refused with a 4xx")
def raw_two(target: Target) -> str:
    target.offers_binary()
    return refused(_raw(target, "add-sub", bytes(16)))
