"""The binary tensor data extension: requests whose sizes are off must be refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.core import EXTENSION, Failed, register
from conformance.target import Target, binary_inputs, refused
from conformance.tensors import fp32

ROW = np.array([[1, 3, 2, 0]], np.float32)
_Send = Callable[[Target], Any]


def _refusal(name: str, what: str) -> Callable[[_Send], _Send]:
    def add(send: _Send) -> _Send:
        def body(target: Target) -> str:
            target.offers_binary()
            evidence = refused(send(target))
            if target.infer("tiny", fp32("x", ROW)).status_code != 200:
                raise Failed("the next request is not served")
            return evidence

        register(f"binary.refuse.{name}", EXTENSION, f"{what}: 4xx with an error text", body)
        return send

    return add


def _sized(target: Target, size: Any, blob: bytes, json_size: int | None = None) -> Any:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    return target.binary("tiny", [tensor], [blob], json_size)


@_refusal("short", "binary data shorter than its shape and datatype")
def _short(target: Target) -> Any:
    return _sized(target, 12, bytes(12))


@_refusal("long", "binary data longer than its shape and datatype")
def _long(target: Target) -> Any:
    return _sized(target, 20, bytes(20))


@_refusal("beyond-body", "binary_data_size beyond the end of the body")
def _beyond(target: Target) -> Any:
    return _sized(target, 16, bytes(8))


@_refusal("trailing", "bytes after the last tensor")
def _trailing(target: Target) -> Any:
    return _sized(target, 16, bytes(24))


@_refusal("size-negative", "a negative binary_data_size")
def _negative(target: Target) -> Any:
    return _sized(target, -16, bytes(16))


@_refusal("size-text", "a binary_data_size that is a text")
def _text(target: Target) -> Any:
    return _sized(target, "sixteen", bytes(16))


@_refusal("size-huge", "a binary_data_size of 2^63")
def _huge(target: Target) -> Any:
    return _sized(target, 1 << 63, bytes(16))


@_refusal("header-beyond", "an Inference-Header-Content-Length beyond the body")
def _header_beyond(target: Target) -> Any:
    return _sized(target, 16, bytes(16), 100_000)


@_refusal("header-negative", "a negative Inference-Header-Content-Length")
def _header_negative(target: Target) -> Any:
    return _sized(target, 16, bytes(16), -1)


@_refusal("header-short", "an Inference-Header-Content-Length inside the JSON")
def _header_short(target: Target) -> Any:
    return _sized(target, 16, bytes(16), 10)


@_refusal("header-text", "an Inference-Header-Content-Length that is no number")
def _header_text(target: Target) -> Any:
    inputs, blobs = binary_inputs(("x", "FP32", ROW))
    body = json.dumps({"inputs": inputs}).encode() + blobs[0]
    return target.post("tiny", body, Inference_Header_Content_Length="many")


@_refusal("header-missing", "binary data without an Inference-Header-Content-Length")
def _header_missing(target: Target) -> Any:
    inputs, blobs = binary_inputs(("x", "FP32", ROW))
    return target.post("tiny", json.dumps({"inputs": inputs}).encode() + blobs[0])


@_refusal("both", "an input with both data and binary_data_size")
def _both(target: Target) -> Any:
    inputs, blobs = binary_inputs(("x", "FP32", ROW))
    return target.binary("tiny", [{**inputs[0], "data": [1, 2, 3, 4]}], blobs)


@_refusal("bytes-cut", "a BYTES element whose length goes beyond its data")
def _bytes_cut(target: Target) -> Any:
    tensor = {"name": "x", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}
    return target.binary("id-bytes", [tensor], [b"\x09\x00\x00\x00ab"])


@_refusal("bytes-count", "more BYTES elements than the shape says")
def _bytes_count(target: Target) -> Any:
    tensor = {"name": "x", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 10}}
    return target.binary("id-bytes", [tensor], [b"\x01\x00\x00\x00a\x01\x00\x00\x00b"])


@_refusal("bytes-few", "fewer BYTES elements than the shape says")
def _bytes_few(target: Target) -> Any:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}
    return target.binary("id-bytes", [tensor], [b"\x01\x00\x00\x00a"])


@_refusal("raw-odd", "a raw body whose size is no whole number of elements")
def _raw_odd(target: Target) -> Any:
    return target.post("vector", b"12345", Inference_Header_Content_Length="0", Content_Type="application/octet-stream")
