"""The V2 REST protocol: JSON, the binary extension, BYTES, metadata, status codes."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from tests.serving.conftest import Server
from tests.serving.models import IDENTITIES, rows


def binary(server: Server, model: str, document: dict, *blobs: bytes, size: int | None = None):
    head = json.dumps(document).encode()
    return server.client.post(
        f"/v2/models/{model}/infer",
        content=head + b"".join(blobs),
        headers={"Inference-Header-Content-Length": str(len(head) if size is None else size)},
    )


def test_server_metadata_names_its_extensions_when_asked(standalone: Server) -> None:
    answer = standalone.client.get("/v2").json()
    assert answer["name"] == "slipway" and "binary_tensor_data" in answer["extensions"]


def test_model_metadata_gives_the_signature_when_asked(standalone: Server) -> None:
    assert standalone.client.get("/v2/models/tiny").json() == {
        "name": "tiny",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/healthz", 200),
        ("GET", "/v2/models/tiny/ready", 200),
        ("GET", "/v2/models/many/versions/2", 200),
        ("GET", "/v2/models/many/versions/2/ready", 200),
        ("GET", "/v2/models/many/versions/3", 404),
        ("GET", "/v2/models/broken", 503),
        ("GET", "/v2/models/broken/ready", 503),
        ("GET", "/v2/models/none", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("GET", "/v2/models/tiny/infer", 405),
        ("POST", "/v2/models/tiny", 405),
        ("DELETE", "/v2", 405),
        ("GET", "/v2/models/tiny/other", 404),
        ("GET", "/v2/models/tiny%2Finfer", 404),
        ("GET", "/v2/models//infer", 404),
        ("GET", "/", 404),
    ],
)
def test_path_answers_its_status_when_requested(standalone: Server, method: str, path: str, status: int) -> None:
    answer = standalone.client.request(method, path)
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"]
    if status >= 400:
        assert list(answer.json()) == ["error"]


def test_inference_answers_model_version_and_deployment_when_json(standalone: Server) -> None:
    answer = standalone.infer("tiny", rows(2), id="abc")
    body = answer.json()
    assert answer.status_code == 200
    assert (body["model_name"], body["model_version"], body["id"]) == ("tiny", "1", "abc")
    assert answer.headers["x-slipway-deployment"] == "tiny-1"
    label, scores = body["outputs"]
    assert label["shape"] == [2] and label["datatype"] == "INT64"
    assert scores["shape"] == [2, 3] and len(scores["data"]) == 6
    assert np.argmax(np.reshape(scores["data"], (2, 3)), axis=1).tolist() == label["data"]


def test_only_requested_outputs_come_back_when_named(standalone: Server) -> None:
    body = standalone.infer("tiny", rows(), outputs=[{"name": "scores"}]).json()
    assert [output["name"] for output in body["outputs"]] == ["scores"]


def test_nested_data_gives_the_same_answer_when_shaped_like_the_tensor(standalone: Server) -> None:
    flat = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6, 7, 8.5]}
    nested = {**flat, "data": [[1, 2, 3, 4], [5, 6, 7, 8.5]]}
    assert standalone.infer("tiny", flat).json() == standalone.infer("tiny", nested).json()


def test_nested_data_is_read_exactly_when_brackets_stand_in_other_strings(standalone: Server) -> None:
    nested = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [[1, 2, 3, 4], [5, 6, 7, 8]]}
    assert standalone.infer("tiny", nested, id="[[[").status_code == 200


VALUES = {
    "BOOL": [True, False, True, True],
    "INT8": [-128, 127, 0, 1],
    "INT16": [-32768, 32767, 0, 1],
    "INT32": [-(2**31), 2**31 - 1, 0, 1],
    "INT64": [-(2**63), 2**63 - 1, 0, 1],
    "UINT8": [0, 255, 1, 2],
    "UINT16": [0, 65535, 1, 2],
    "UINT32": [0, 2**32 - 1, 1, 2],
    "UINT64": [0, 2**64 - 1, 1, 2],
    "FP16": [0.5, -1.5, 65504, 3],
    "FP32": [0.1, -1e30, 3, 18446744073709551616],
    "FP64": [0.1, -1e300, 3, 9007199254740993],
    "BYTES": ["a", "", "é漢\u0000", "[1]"],
}


@pytest.mark.parametrize("datatype", VALUES)
@pytest.mark.parametrize("as_binary", [False, True])
def test_values_come_back_unchanged_when_the_model_is_identity(
    standalone: Server, datatype: str, as_binary: bool
) -> None:
    dtype = IDENTITIES[datatype][1]
    expected = np.array(VALUES[datatype], dtype=dtype)
    tensor = {"name": "x", "shape": [2, 2], "datatype": datatype, "data": VALUES[datatype]}
    output = {"name": "y", "parameters": {"binary_data": as_binary}}
    answer = standalone.infer(f"id-{datatype.lower()}", tensor, outputs=[output])
    assert answer.status_code == 200, answer.text
    assert _read(answer, datatype, dtype) == expected.tolist()


@pytest.mark.parametrize("datatype", VALUES)
def test_binary_values_come_back_unchanged_when_the_model_is_identity(standalone: Server, datatype: str) -> None:
    dtype = IDENTITIES[datatype][1]
    values = np.array(VALUES[datatype], dtype=dtype)
    blob = _strings(VALUES[datatype]) if datatype == "BYTES" else values.tobytes()
    document = {
        "inputs": [
            {
                "name": "x",
                "shape": [2, 2],
                "datatype": datatype,
                "parameters": {"binary_data_size": len(blob)},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    answer = binary(standalone, f"id-{datatype.lower()}", document, blob)
    assert answer.status_code == 200, answer.text
    assert _read(answer, datatype, dtype) == values.tolist()


def _strings(values: list[str]) -> bytes:
    return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)


def _read(answer, datatype: str, dtype) -> list:
    size = answer.headers.get("inference-header-content-length")
    head = json.loads(answer.content[: int(size)] if size else answer.content)
    output = head["outputs"][0]
    assert output["shape"] == [2, 2] and output["datatype"] == datatype
    if not size:
        return np.array(output["data"], dtype=dtype).tolist()
    blob = answer.content[int(size) :]
    assert output["parameters"]["binary_data_size"] == len(blob)
    if datatype != "BYTES":
        return np.frombuffer(blob, dtype).tolist()
    found = []
    while blob:
        (length,) = struct.unpack_from("<I", blob)
        found.append(blob[4 : 4 + length].decode())
        blob = blob[4 + length :]
    return found


def test_binary_nan_and_infinity_pass_when_sent_as_ieee(standalone: Server) -> None:
    values = np.array([np.nan, np.inf, -np.inf, 0], np.float32)
    document = {
        "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    answer = binary(standalone, "id-fp32", document, values.tobytes())
    size = int(answer.headers["inference-header-content-length"])
    assert np.array_equal(np.frombuffer(answer.content[size:], np.float32), values, equal_nan=True)


def test_json_and_binary_inputs_mix_when_both_are_sent(standalone: Server) -> None:
    document = {
        "inputs": [
            {"name": "a", "shape": [2], "datatype": "FP32", "data": [1, 2]},
            {"name": "b", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
        ]
    }
    answer = binary(standalone, "two", document, np.array([10, 20], np.float32).tobytes())
    assert answer.json()["outputs"][0]["data"] == [11, 22]


def test_raw_body_is_the_one_input_when_the_header_length_is_zero(standalone: Server) -> None:
    values = np.arange(6, dtype=np.float32)
    answer = standalone.client.post(
        "/v2/models/vector/infer",
        content=values.tobytes(),
        headers={"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"},
    )
    size = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.content[size:], np.float32).tolist() == values.tolist()


def test_empty_tensor_is_answered_when_a_dimension_is_zero(standalone: Server) -> None:
    body = standalone.infer("id-fp32", {"name": "x", "shape": [0, 3], "datatype": "FP32", "data": []}).json()
    assert body["outputs"][0] == {"name": "y", "shape": [0, 3], "datatype": "FP32", "data": []}


def test_highest_version_answers_when_none_is_pinned(standalone: Server) -> None:
    assert standalone.infer("many", rows()).json()["model_version"] == "10"


@pytest.mark.parametrize("version", ["1", "2", "10"])
def test_pinned_version_answers_when_in_the_path(standalone: Server, version: str) -> None:
    body = standalone.infer(f"many/versions/{version}", rows()).json()
    assert body["model_version"] == version and body["outputs"][0]["data"] == [float(version)]


def test_request_id_is_echoed_when_plain_and_capped_when_long(standalone: Server) -> None:
    def echoed(value: str) -> str:
        return standalone.client.get("/v2", headers={"X-Request-Id": value}).headers["x-request-id"]

    assert echoed("abc-1") == "abc-1"
    assert echoed("a" * 500) == "a" * 128
    assert echoed("two words") != "two words"


def test_large_batch_leaves_the_loop_and_answers_when_sent(standalone: Server) -> None:
    body = standalone.infer("tiny", rows(20_000)).json()
    assert body["outputs"][0]["shape"] == [20_000]


def test_chunked_body_is_read_when_it_has_no_length(standalone: Server) -> None:
    text = json.dumps({"inputs": [rows()]}).encode()
    answer = standalone.client.post("/v2/models/tiny/infer", content=(text[i : i + 7] for i in range(0, len(text), 7)))
    assert answer.status_code == 200


def test_metrics_sum_up_when_read(standalone: Server) -> None:
    standalone.infer("two", {"name": "a", "shape": [1], "datatype": "FP32", "data": [1]})
    standalone.infer("vector", {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]})
    text = standalone.client.get("/metrics").text
    assert 'slipway_inferences_total{deployment="vector-1",model="vector",version="1"}' in text
    assert 'slipway_responses_total{model="two",status="400"}' in text
    assert 'slipway_generation{process="0"} 0.0' in text
    assert 'slipway_inference_seconds_bucket{deployment="vector-1",le="+Inf"' in text
