"""Optional inputs, sequences, maps, BF16, state, external data; classes, statistics, configuration."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import numpy as np
import onnxruntime as ort
import pytest

from serving.batching import measure
from serving.model import ModelError, load_model
from serving.values import from_bfloat16, to_bfloat16
from tests.serving import kinds
from tests.serving.conftest import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("kinds")
    kinds.write_all(folder)
    started = Server("--models", str(folder))
    yield started.wait_ready()
    started.stop()


def fp32(name: str, *values: float, shape: list[int] | None = None) -> dict:
    return {"name": name, "datatype": "FP32", "shape": shape or [len(values)], "data": list(values)}


def data(answer: object, name: str) -> list:
    assert answer.status_code == 200, answer.text
    return next(output["data"] for output in answer.json()["outputs"] if output["name"] == name)


def test_input_with_a_default_may_be_left_out(server: Server) -> None:
    assert data(server.infer("default", fp32("x", 1, 2)), "y") == [2, 3]
    assert data(server.infer("default", fp32("x", 1, 2), fp32("b", 10)), "y") == [11, 12]
    refused = server.infer("default", fp32("b", 10))
    assert refused.status_code == 400 and "'x' is missing" in refused.json()["error"]


def test_optional_input_may_be_left_out_when_the_model_says_so(server: Server) -> None:
    assert data(server.infer("optional", fp32("x", 1, 2)), "y") == [1, 2]
    assert data(server.infer("optional", fp32("x", 1, 2), fp32("o", 7, 8)), "y") == [7, 8]
    described = server.client.get("/v2/models/optional/config").json()["input"]
    assert {item["name"]: item["optional"] for item in described} == {"x": False, "o": True}


def test_sequences_are_tensors_with_one_more_axis_both_ways(server: Server) -> None:
    answer = server.infer("sequence-out", fp32("x", 1, 2, 3, 4, 5, 6, shape=[3, 2]))
    assert answer.json()["outputs"][0]["shape"] == [3, 2] and data(answer, "s") == [1, 2, 3, 4, 5, 6]
    assert data(server.infer("sequence-in", fp32("s", 1, 2, 3, 4, shape=[2, 2])), "y") == [1, 2, 3, 4]


def test_maps_of_a_classifier_are_json_texts(server: Server) -> None:
    texts = data(server.infer("zipmap", fp32("p", 0.25, 0.75, 1, 0, shape=[2, 2])), "m")
    assert [json.loads(text) for text in texts] == [{"3": 0.25, "7": 0.75}, {"3": 1, "7": 0}]


def test_state_goes_in_and_out_when_a_model_keeps_it_so(server: Server) -> None:
    state = 0.0
    for value in (1.0, 2.0, 3.0):
        answer = server.infer("stateful", fp32("x", value), fp32("state", state))
        (state,) = data(answer, "state_out")
    assert state == 6


def test_external_data_beside_a_model_is_loaded(server: Server) -> None:
    row = np.linspace(-1, 1, 64, dtype=np.float32)
    found = data(server.infer("external", fp32("x", *map(float, row), shape=[1, 64])), "y")
    session = ort.InferenceSession(kinds.mlp(1, 64).SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.allclose(found, session.run(None, {"x": row[None]})[0].ravel(), atol=1e-6)


def test_bfloat16_passes_as_json_and_as_binary(server: Server) -> None:
    answer = server.infer("bf16", {"name": "x", "datatype": "BF16", "shape": [3], "data": [1.5, -2, 3.14159]})
    assert data(answer, "y") == [1.5, -2, 3.140625] == data(answer, "z")
    bits = to_bfloat16(np.array([0.1, -7e10]))
    head = json.dumps({
        "inputs": [{"name": "x", "datatype": "BF16", "shape": [2], "parameters": {"binary_data_size": 4}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }).encode()  # fmt: skip
    answer = server.client.post(
        "/v2/models/bf16/infer",
        content=head + bits.tobytes(),
        headers={"inference-header-content-length": str(len(head))},
    )
    assert answer.status_code == 200 and answer.content.endswith(bits.tobytes())


@pytest.mark.parametrize("value", [0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, -3.3e38, 1e-40, 65504.0])
def test_bfloat16_is_the_nearest_with_ties_to_even(value: float) -> None:
    import ml_dtypes

    expected = np.array([value]).astype(np.float32).astype(ml_dtypes.bfloat16)
    assert to_bfloat16(np.array([value]))[0] == expected.view(np.uint16)[0]
    assert from_bfloat16(expected.view(np.uint16))[0] == expected.astype(np.float32)[0]


def test_classes_are_given_when_asked_for(server: Server) -> None:
    rows = fp32("x", 1, 2, 4, 3, 5, 5, shape=[3, 2])
    asked = [{"name": "s", "parameters": {"classification": 2}}]
    output = server.infer("sequence-out", rows, outputs=asked).json()["outputs"][0]
    assert (output["datatype"], output["shape"]) == ("BYTES", [3, 2])
    assert output["data"] == ["2.000000:1", "1.000000:0", "4.000000:0", "3.000000:1", "5.000000:0", "5.000000:1"]
    for wrong in (-1, 1.5, "2", True):
        asked = [{"name": "s", "parameters": {"classification": wrong}}]
        assert server.infer("sequence-out", rows, outputs=asked).status_code == 400
    refused = server.infer(
        "zipmap", fp32("p", 1, 0, shape=[1, 2]), outputs=[{"name": "m", "parameters": {"classification": 1}}]
    )
    assert refused.status_code == 400 and "'m'" in refused.json()["error"]


def test_statistics_add_up_over_requests(server: Server) -> None:
    def of_default() -> dict:
        return server.client.get("/v2/models/default/stats").json()["model_stats"][0]

    before = of_default()
    for _ in range(5):
        server.infer("default", fp32("x", 1))
    after = of_default()
    assert after["inference_count"] - before["inference_count"] == 5
    assert after["execution_count"] - before["execution_count"] == 5
    assert after["last_inference"] > 1.7e12
    for part in ("success", "compute_infer", "compute_input", "compute_output"):
        assert after["inference_stats"][part]["ns"] > before["inference_stats"][part]["ns"], part
    everything = server.client.get("/v2/models/stats").json()["model_stats"]
    assert {item["name"] for item in everything} == {*kinds.ALL, "external"}
    assert server.client.get("/v2/models/default/versions/9/stats").status_code == 404
    assert server.client.get("/v2/models/nobody/stats").status_code == 404


def test_models_are_read_only(server: Server) -> None:
    for action in ("load", "unload"):
        refused = server.client.post(f"/v2/repository/models/default/{action}")
        assert refused.status_code == 400 and "deployments" in refused.json()["error"]


def test_provider_that_is_absent_is_said_when_loading() -> None:
    data_ = kinds.with_default().SerializeToString()
    for provider in ("cuda", "openvino"):
        if any(provider in name.lower() for name in ort.get_available_providers()):
            continue
        with pytest.raises(ModelError, match=f"the {provider} provider is not installed .*cpu"):
            load_model(data_, provider=provider)


def test_batching_is_on_by_evidence_and_off_where_rows_influence_each_other() -> None:
    helped = load_model(kinds.mlp(8, 1024).SerializeToString())
    assert helped.warm() == ""
    assert helped.batching.why.startswith("on:") and helped.batching.most(64, 1e9) >= 8
    assert helped.batching.most(64, 1e-6) == 1 and helped.batching.most(1, 1e9) == 1
    mixed = load_model(kinds.centered().SerializeToString())
    mixed.cost_us = 1000.0
    assert measure(mixed).why == "off: rows of one run influence each other"
    fixed = load_model(kinds.stateful().SerializeToString())
    fixed.cost_us = 1000.0
    assert "is fixed" in measure(fixed).why


def test_cheap_calls_that_come_together_share_a_run_and_get_their_own_rows(server: Server) -> None:
    row = {"name": "x", "datatype": "FP32", "shape": [1, 64]}
    session = ort.InferenceSession(kinds.mlp(1, 64).SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    address = httpx.URL(server.url)
    for _ in range(20):
        values = rng.normal(size=(24, 64)).astype(np.float32)
        connections = [socket.create_connection((address.host, address.port), 20) for _ in values]
        for connection, one in zip(connections, values, strict=True):
            body = json.dumps({"inputs": [{**row, "data": one.tolist()}]}).encode()
            head = f"POST /v2/models/external/infer HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
        expected = session.run(None, {"x": values})[0]
        for connection, wanted in zip(connections, expected, strict=True):
            with connection:
                text = connection.recv(1 << 16)
            outputs = json.loads(text.partition(b"\r\n\r\n")[2])["outputs"]
            assert np.allclose(outputs[0]["data"], wanted, atol=1e-5)
    stats = server.client.get("/v2/models/external/stats").json()["model_stats"][0]
    assert stats["execution_count"] < stats["inference_count"]
    assert max(item["batch_size"] for item in stats["batch_stats"]) > 1
