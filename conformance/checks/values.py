"""Values at the edge: what is not finite, what does not fit, what the text lets a server coerce or refuse."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from conformance.core import EXTENSION, Failed, expect, extension, register, required
from conformance.target import Target, document, outputs, refused
from conformance.tensors import as_input, fp32, from_json


@required("values.not-finite-out", "an infinity or NaN that the model makes does not break the response's JSON")
def not_finite_out(target: Target) -> str:
    body = document(target.infer("infinite", fp32("x", [0.0, 2.0])))
    found = {item["name"]: item["data"] for item in body["outputs"]}
    expect(float(found["y"][1]) == 0.5, f"{found}")
    return f"1/0 is {json.dumps(found['y'][0])}, 0·(1/0) is {json.dumps(found['z'][0])}"


def _literal(name: str, literal: str) -> None:
    def body(target: Target) -> str:
        text = f'{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":[{literal}]}}]}}'
        return refused(target.post("vector", text))

    register(f"values.{name}", EXTENSION, f"the literal {literal} is refused, being no finite JSON number", body)


_literal("nan-in", "NaN")
_literal("infinity-in", "-Infinity")
_literal("overflow-in", "1e400")


def _never_wrapped(name: str, datatype: str, value: Any, says: str) -> None:
    def body(target: Target) -> str:
        tensor = {"name": "x", "shape": [1, 1], "datatype": datatype, "data": [value]}
        answer = target.infer(f"id-{datatype.lower()}", tensor)
        if answer.status_code != 200:
            return refused(answer)
        data = document(answer)["outputs"][0]["data"]
        raise Failed(f"{value!r} came back as {data}")

    register(f"values.{name}", EXTENSION, says, body)


_never_wrapped("int8-high", "INT8", 128, "128 as INT8 is refused and not wrapped")
_never_wrapped("int8-low", "INT8", -129, "-129 as INT8 is refused and not wrapped")
_never_wrapped("uint8-negative", "UINT8", -1, "-1 as UINT8 is refused and not wrapped")
_never_wrapped("int32-high", "INT32", 2**31, "2^31 as INT32 is refused and not wrapped")
_never_wrapped("int64-high", "INT64", 2**63, "2^63 as INT64 is refused and not wrapped")
_never_wrapped("uint64-high", "UINT64", 2**64, "2^64 as UINT64 is refused and not wrapped")
_never_wrapped("uint64-negative", "UINT64", -1, "-1 as UINT64 is refused and not wrapped")
_never_wrapped("fraction-in-int", "INT32", 1.5, "1.5 as INT32 is refused and not cut")
_never_wrapped("fp32-high", "FP32", 1e39, "1e39 as FP32 is refused and no infinity")
_never_wrapped("fp16-high", "FP16", 70000, "70000 as FP16 is refused and no infinity")
_never_wrapped("number-as-bytes", "BYTES", 5, "a number as BYTES is refused")
_never_wrapped("number-as-bool", "BOOL", 2, "2 as BOOL is refused")
_never_wrapped("bool-as-number", "INT32", True, "true as INT32 is refused")


@extension("values.bf16-json", "BF16 as JSON data, for which the text has no form, is refused or comes back exactly")
def bf16_json(target: Target) -> str:
    answer = target.infer("id-bf16", {"name": "x", "shape": [1, 2], "datatype": "BF16", "data": [1, -0.5]})
    if answer.status_code != 200:
        return refused(answer)
    data = document(answer)["outputs"][0]["data"]
    expect(data == [1, -0.5], f"[1, -0.5] came back as {data}")
    return f"taken: [1, -0.5] came back as {data}"


@required("values.int64-exact", "INT64 beyond 2^53 is exact")
def int64_exact(target: Target) -> str:
    value = 2**53 + 1
    tensor = as_input("x", "INT64", np.array([[value, -value]], np.int64))
    found = outputs(target.infer("id-int64", tensor))["y"].tolist()
    expect(found == [[value, -value]], f"sent {value}, got {found}")
    return str(found)


@required("values.whole-floats", "integers are taken as values of floating point inputs")
def whole_floats(target: Target) -> str:
    tensor = {"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, -3]}
    found = outputs(target.infer("vector", tensor))["y"].tolist()
    expect(found == [1, 2, -3], f"{found}")
    return str(found)


@required("values.negative-zero", "numbers in exponent notation and -0.0 are read")
def exponents(target: Target) -> str:
    text = '{"inputs":[{"name":"x","shape":[4],"datatype":"FP32","data":[1e2,-0.0,1.5E-3,2.5e+0]}]}'
    found = outputs(target.post("vector", text))["y"]
    expect(np.allclose(found, [100, 0, 0.0015, 2.5]), f"{found.tolist()}")
    sign = "kept" if math.copysign(1, float(found[1])) < 0 else "lost"
    return f"{found.tolist()}; the sign of -0.0 is {sign}"


@required("values.escapes", "JSON escapes in BYTES mean the characters they stand for")
def escapes(target: Target) -> str:
    text = '{"inputs":[{"name":"x","shape":[1,2],"datatype":"BYTES","data":["\\u00e4\\/\\n","\\ud83d\\ude80"]}]}'
    found = from_json(document(target.post("id-bytes", text))["outputs"][0]).tolist()
    expect(found == [["ä/\n", "\U0001f680"]], f"{found}")
    return repr(found)


@extension("values.nul-in-bytes", "a NUL inside a BYTES element survives")
def nul(target: Target) -> str:
    found = outputs(target.infer("id-bytes", as_input("x", "BYTES", np.array([["a\0b"]], object))))["y"].tolist()
    expect(found == [["a\0b"]], f"{found!r}")
    return repr(found)


@required("values.escaped-names", "names of members and tensors may be written with escapes")
def escaped_names(target: Target) -> str:
    text = '{"\\u0069nputs":[{"name":"\\u0078","shape":[1],"datatype":"FP32","data":[1]}]}'
    return str(outputs(target.post("vector", text))["y"].tolist())


@extension("values.byte-order-mark", "a byte order mark before the JSON is passed over or refused with a 4xx")
def byte_order_mark(target: Target) -> str:
    answer = target.post("vector", b"\xef\xbb\xbf" + json.dumps({"inputs": [fp32("x", [1.0])]}).encode())
    return "200" if answer.status_code == 200 else refused(answer)


@extension("values.large-json", "100,000 numbers as JSON go in and come back")
def large_json(target: Target) -> str:
    values = (np.arange(100_000, dtype=np.float32) / 3).astype(np.float32)
    answer = target.infer("vector", as_input("x", "FP32", values))
    found = outputs(answer)["y"]
    expect(np.array_equal(found, values), f"{np.count_nonzero(found != values)} values differ")
    return f"{len(answer.content)} bytes back"
