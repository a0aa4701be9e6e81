"""Bodies of the bench's requests, and whether an answer to one is right."""

from __future__ import annotations

import http.client
import json
import statistics
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort

from bench.serving_parts import models

TOLERANCE = 1e-4
CNN_MS = 4.0
# Answers that carry what was asked for, by the model's name.
ANSWERS = {"tiny": "probabilities", "cnn": "probabilities", "mlp": "y"}


@dataclass(frozen=True)
class Request:
    """A POST and the numbers that a right answer holds, one after the other."""

    path: str
    body: bytes
    expected: np.ndarray
    headers: dict[str, str] = field(default_factory=dict)


def session(data: bytes) -> ort.InferenceSession:
    """As every server of the bench runs a model: on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@cache
def artifact(model: str, note: str = "") -> bytes:
    """The bytes of a model by its name; the cnn is as deep as costs `CNN_MS` a call on this machine."""
    if model == "cnn":
        return models.cnn(note, _deeper())
    made: bytes = getattr(models, model)(note)
    return made


@cache
def _deeper() -> int:
    bare, more = call_ms(models.cnn()), call_ms(models.cnn(deeper=8))
    return max(0, round((CNN_MS - bare) * 8 / (more - bare)))


def call_ms(data: bytes, calls: int = 60) -> float:
    """The median time of one call of the cnn on one thread, in ms."""
    one, feeds, spent = session(data), {"x": models.sample("cnn")}, []
    for _ in range(calls):
        began = time.perf_counter()
        one.run(None, feeds)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent) * 1000


@cache
def expected(model: str) -> np.ndarray:
    """What the model itself answers to its sample, flat."""
    (answer,) = session(artifact(model)).run([ANSWERS[model]], {"x": models.sample(model)})
    return np.asarray(answer).ravel()


def numbers_text(array: np.ndarray) -> str:
    """A flat JSON array of numbers with seven decimals."""
    return "[" + ",".join(f"{value:.7f}" for value in array.ravel().tolist()) + "]"


def rows_text(array: np.ndarray) -> str:
    """A JSON array nested as the array's shape is."""
    if array.ndim == 1:
        return numbers_text(array)
    return "[" + ",".join(rows_text(part) for part in array) + "]"


def v2_json(model: str, path: str, headers: dict[str, str] | None = None) -> Request:
    """An Open Inference Protocol request in JSON."""
    x = models.sample(model)
    text = (
        f'{{"inputs":[{{"name":"x","shape":{json.dumps(list(x.shape))},"datatype":"FP32","data":{numbers_text(x)}}}]}}'
    )
    headers = {"Content-Type": "application/json", **(headers or {})}
    return Request(path, text.encode(), expected(model), headers)


def v2_binary(model: str, path: str, headers: dict[str, str] | None = None) -> Request:
    """The same with the binary tensor extension, both ways."""
    x = models.sample(model)
    tensor = {
        "name": "x",
        "shape": list(x.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": x.nbytes},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
        **(headers or {}),
    }
    return Request(path, head + x.tobytes(), expected(model), headers)


def plain_json(model: str, path: str, key: str) -> Request:
    """`{key: rows}`, for servers with a body of their own choosing."""
    text = f'{{"{key}":{rows_text(models.sample(model))}}}'
    return Request(path, text.encode(), expected(model), {"Content-Type": "application/json"})


def grpc_message(model: str) -> bytes:
    """A ModelInferRequest with `raw_input_contents`, length-prefixed as gRPC sends it; written by hand, since
    four fields need no generated code."""
    x = models.sample(model)
    shape = b"".join(_varint(size) for size in x.shape)
    tensor = _field(1, b"x") + _field(2, b"FP32") + _field(3, shape)
    message = _field(1, model.encode()) + _field(5, tensor) + _field(7, x.tobytes())
    return struct.pack(">BI", 0, len(message)) + message


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def holds(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether `wanted` is in `found`, in one piece."""
    last = len(found) - len(wanted)
    return any(np.allclose(found[i : i + len(wanted)], wanted, rtol=TOLERANCE, atol=TOLERANCE) for i in range(last + 1))


def is_right(request: Request, headers: dict[str, str], body: bytes) -> bool:
    """Whether an answer holds what the model itself says. `headers` have lower-case names."""
    size = headers.get("inference-header-content-length")
    if size is None:
        return holds(np.array(list(_numbers(json.loads(body))), np.float64), request.expected)
    offset = int(size)
    for tensor in json.loads(body[:offset])["outputs"]:
        length = tensor["parameters"]["binary_data_size"]
        if tensor["datatype"] == "FP32":
            return holds(np.frombuffer(body[offset : offset + length], np.float32), request.expected)
        offset += length
    return False


def _numbers(value: Any) -> Iterator[float]:
    """Every number of a JSON value, in its order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def ask(port: int, request: Request, timeout: float = 20) -> tuple[int, dict[str, str], bytes]:
    """Send it once: status, headers, body. Raises OSError and http.client.HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", request.path, request.body, request.headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()
