"""A client that others wrote: tritonclient's HTTP client against this server."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.serving.conftest import Server


@pytest.fixture
def client(standalone: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(standalone.url.removeprefix("http://")) as made:
        yield made


def test_client_finds_server_and_model_when_it_asks(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata()["name"] == "slipway"
    assert client.is_model_ready("tiny") and client.is_model_ready("many", "2")
    assert not client.is_model_ready("none")
    assert client.get_model_metadata("tiny")["inputs"][0]["datatype"] == "FP32"
    index = client.get_model_repository_index()
    assert {"name": "tiny", "version": "1", "state": "READY", "reason": ""} in index
    assert any(entry["name"] == "broken" and entry["state"] == "UNAVAILABLE" for entry in index)


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_client_infers_when_tensors_are_json_or_binary(
    client: triton.InferenceServerClient, binary_in: bool, binary_out: bool
) -> None:
    values = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    tensor = triton.InferInput("x", [3, 4], "FP32")
    tensor.set_data_from_numpy(values, binary_data=binary_in)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("scores", "label")]
    result = client.infer("tiny", [tensor], outputs=wanted, request_id="r1")
    scores, label = result.as_numpy("scores"), result.as_numpy("label")
    assert scores.shape == (3, 3) and np.array_equal(scores.argmax(axis=1), label)
    assert result.get_response()["id"] == "r1"


@pytest.mark.parametrize(
    ("model", "dtype", "name"), [("id-fp16", np.float16, "FP16"), ("id-uint64", np.uint64, "UINT64")]
)
def test_client_gets_its_numbers_back_when_the_model_is_identity(
    client: triton.InferenceServerClient, model: str, dtype: type, name: str
) -> None:
    values = np.array([[1, 2], [3, 4]], dtype)
    tensor = triton.InferInput("x", [2, 2], name)
    tensor.set_data_from_numpy(values)
    assert np.array_equal(client.infer(model, [tensor]).as_numpy("y"), values)


@pytest.mark.parametrize("binary", [False, True])
def test_client_gets_its_strings_back_when_the_model_is_identity(
    client: triton.InferenceServerClient, binary: bool
) -> None:
    values = np.array([["a", "é漢"], ["", "x y"]], dtype=object)
    tensor = triton.InferInput("x", [2, 2], "BYTES")
    tensor.set_data_from_numpy(values, binary_data=binary)
    wanted = [triton.InferRequestedOutput("y", binary_data=binary)]
    found = client.infer("id-bytes", [tensor], outputs=wanted).as_numpy("y")
    assert [v.decode() if isinstance(v, bytes) else v for v in found.ravel()] == values.ravel().tolist()


def test_client_sees_the_reason_when_its_tensor_is_wrong(client: triton.InferenceServerClient) -> None:
    tensor = triton.InferInput("x", [1, 5], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 5), np.float32))
    with pytest.raises(InferenceServerException, match="'x'"):
        client.infer("tiny", [tensor])
