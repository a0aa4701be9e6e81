"""gRPC: every method, every datatype both ways, streams, a client that others wrote, how it is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from serving.protocol import protobuf
from tests.serving import models
from tests.serving.conftest import ROOT, Server, wait_until
from tests.serving.grpc_client import CONTENTS, Client, packed, request, rows, typed

# -- the schema --------------------------------------------------------------------------------------


def test_fields_have_the_published_names_numbers_and_types() -> None:
    mine = protobuf.describe(protobuf.SOURCE.read_text())
    assert mine.package == "inference"

    def compare(made: object, theirs: object) -> None:
        for field in made.field:
            published = theirs.fields_by_name[field.name]
            assert (field.number, field.type) == (published.number, published.type), (made.name, field.name)
            assert (field.label == field.LABEL_REPEATED) == published.is_repeated, (made.name, field.name)
            if field.type == field.TYPE_MESSAGE:
                assert field.type_name == f".{published.message_type.full_name}"
        for part in made.nested_type:
            compare(part, theirs.nested_types_by_name[part.name])
        for enum in made.enum_type:
            assert {v.name: v.number for v in enum.value} == {
                v.name: v.number for v in theirs.enum_types_by_name[enum.name].values
            }

    for message in mine.message_type:
        published = getattr(service_pb2, message.name, None) or getattr(model_config_pb2, message.name)
        compare(message, published.DESCRIPTOR)
    known = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for method in mine.service[0].method:
        theirs = known[method.name]
        assert method.client_streaming == theirs.client_streaming and method.server_streaming == theirs.server_streaming


# -- everything but inference ------------------------------------------------------------------------


def test_server_and_models_are_described_as_over_rest(server: Server, client: Client) -> None:
    assert client.call("ServerLive").live and client.call("ServerReady").ready
    told, rest = client.call("ServerMetadata"), server.client.get("/v2").json()
    assert (told.name, told.version, list(told.extensions)) == (rest["name"], rest["version"], rest["extensions"])
    assert client.call("ModelReady", name="tiny").ready and client.call("ModelReady", name="many", version="2").ready
    told, rest = client.call("ModelMetadata", name="tiny"), server.client.get("/v2/models/tiny").json()
    assert (told.name, told.platform, list(told.versions)) == ("tiny", rest["platform"], rest["versions"])
    for side in ("inputs", "outputs"):
        found = [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in getattr(told, side)]
        assert found == rest[side]


def test_config_names_types_and_shapes_when_a_model_is_loaded(client: Client) -> None:
    config = client.call("ModelConfig", name="tiny").config
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "onnxruntime", 0)
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("x", 11, [-1, 4])]
    assert [t.name for t in config.output] == ["label", "scores"]
    assert config.instance_group[0].kind == 2 and "deployment" in config.parameters


def test_statistics_count_calls_of_one_or_all_models(client: Client) -> None:
    before = client.call("ModelStatistics", name="two").model_stats[0]
    pair = [(n, "FP32", np.ones(3, np.float32)) for n in "ab"]
    for _ in range(3):
        client.infer(request("two", *pair))
    after = client.call("ModelStatistics", name="two").model_stats[0]
    assert after.inference_count - before.inference_count == 3
    assert after.inference_stats.success.count >= 3 and after.inference_stats.success.ns > 0
    assert {s.name for s in client.call("ModelStatistics").model_stats} >= {"two", "tiny", "many"}


def test_index_lists_models_and_only_ready_ones_when_asked(client: Client) -> None:
    every = {(m.name, m.version, m.state) for m in client.call("RepositoryIndex").models}
    assert ("tiny", "1", "READY") in every and any(n == "broken" and s == "UNAVAILABLE" for n, _, s in every)
    assert all(m.state == "READY" for m in client.call("RepositoryIndex", ready=True).models)


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_loading_is_refused_with_a_sentence(client: Client, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.call(method, model_name="tiny")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "deployments alone" in caught.value.details()


def test_health_service_answers_orchestrators(client: Client) -> None:
    check = client.channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
    assert check(b"", timeout=10) == b"\x08\x01"
    with pytest.raises(grpc.RpcError) as caught:
        check(b"\x0a\x03abc", timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "method,fields",
    [("ModelReady", {"name": "none"}), ("ModelMetadata", {"name": "none"}), ("ModelConfig", {"name": "none"}),
     ("ModelStatistics", {"name": "none"}), ("ModelMetadata", {"name": "many", "version": "9"})],
)  # fmt: skip
def test_unknown_models_are_not_found(client: Client, method: str, fields: dict) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.call(method, **fields)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


# -- tensors -----------------------------------------------------------------------------------------


def example(datatype: str) -> np.ndarray:
    if datatype == "BYTES":
        return np.array([["", "text", "漢字"], ["x" * 1000, "\0", "é"]], dtype=object)
    dtype = models.IDENTITIES[datatype][1]
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if np.dtype(dtype).kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        return np.array([[low, high, 0], [1, 2, 3]], dtype=dtype)
    return np.array([[0.5, -1.25, 3e4], [0, np.inf, -np.inf]], dtype=dtype)


@pytest.mark.parametrize("datatype,raw", [(d, raw) for d in models.IDENTITIES for raw in (1, 0) if raw or d != "FP16"])
def test_every_datatype_comes_back_as_it_went(client: Client, datatype: str, raw: int) -> None:
    array = example(datatype)
    answer = client.infer(request(f"id-{datatype.lower()}", ("x", datatype, array), raw=raw))
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", datatype, [2, 3])
    if raw:
        assert list(answer.raw_output_contents) == [packed(array)] and not output.HasField("contents")
    else:
        assert not answer.raw_output_contents
        wanted = [v.encode() for v in array.ravel()] if datatype == "BYTES" else array.ravel().tolist()
        assert list(getattr(output.contents, CONTENTS[datatype])) == wanted


def test_half_precision_is_raw_both_ways_and_makes_a_typed_answer_raw(client: Client) -> None:
    bits = np.array([0x3F80, 0x4000], np.uint16)  # 1 and 2
    answer = client.infer(request("half", ("x", "BF16", bits)))
    assert [o.datatype for o in answer.outputs] == ["BF16", "FP32"]
    assert answer.raw_output_contents[0] == bits.tobytes()
    assert np.frombuffer(answer.raw_output_contents[1], np.float32).tolist() == [1, 2]
    status, text = client.refused(typed("half", "BF16", [2], fp32_contents=[1, 2]))
    assert status == "INVALID_ARGUMENT" and "raw_input_contents" in text


def test_empty_tensors_pass_typed_and_raw(client: Client) -> None:
    for raw in (True, False):
        answer = client.infer(request("id-fp32", ("x", "FP32", np.empty((0, 3), np.float32)), raw=raw))
        assert list(answer.outputs[0].shape) == [0, 3]


def test_outputs_come_in_the_order_asked_and_ids_come_back(client: Client) -> None:
    asked = rows(id="abc", outputs=[{"name": "scores"}, {"name": "label"}])
    answer = client.infer(asked)
    assert (answer.id, answer.model_name, answer.model_version) == ("abc", "tiny", "1")
    assert [o.name for o in answer.outputs] == ["scores", "label"]
    assert [o.name for o in client.infer(rows(outputs=[{"name": "label"}])).outputs] == ["label"]
    assert [o.name for o in client.infer(rows()).outputs] == ["label", "scores"]


def test_classification_gives_the_best_classes(client: Client) -> None:
    output = {"name": "scores", "parameters": {"classification": {"int64_param": 2}}}
    for raw in (True, False):
        answer = client.infer(rows(raw=raw, outputs=[output]))
        assert answer.outputs[0].datatype == "BYTES" and list(answer.outputs[0].shape) == [1, 2]


def test_versions_can_be_pinned(client: Client) -> None:
    for version in ("1", "2", "10"):
        answer = client.infer(rows("many", model_version=version))
        assert answer.model_version == version
        assert np.frombuffer(answer.raw_output_contents[0], np.float32) == float(version)
    assert client.refused(rows("many", model_version="9"))[0] == "NOT_FOUND"


def test_parameters_of_other_servers_are_accepted(client: Client) -> None:
    made = rows()
    made.parameters["sequence_id"].int64_param = 7
    made.parameters["sequence_start"].bool_param = True
    made.parameters["priority"].uint64_param = 1
    made.parameters["timeout"].int64_param = 5
    made.parameters["binary_data_output"].bool_param = True
    made.parameters["own"].string_param = "x"
    made.parameters["double"].double_param = 0.5
    made.inputs[0].parameters["binary_data_size"].int64_param = 16
    assert client.infer(made).outputs


def test_large_tensors_pass_and_agree_with_rest(server: Server, client: Client) -> None:
    array = np.random.default_rng(0).normal(size=(300, 3000)).astype(np.float32)  # 3.6 MB
    answer = client.infer(request("id-fp32", ("x", "FP32", array), id="big"))
    assert answer.raw_output_contents[0] == array.tobytes() and answer.id == "big"
    part = array[:50]  # typed, read in the pool
    answer = client.infer(request("id-fp32", ("x", "FP32", part), raw=False))
    assert np.array_equal(np.array(answer.outputs[0].contents.fp32_contents, np.float32), part.ravel())


# -- streams -----------------------------------------------------------------------------------------


def test_stream_answers_in_order_and_goes_on_after_a_refusal(client: Client) -> None:
    made = [rows("many", model_version=v, id=f"id-{i}") for i, v in enumerate(["1", "2", "10", "9", "1"] * 20)]
    answers = list(client.stream(iter(made)))
    assert [a.infer_response.id for a in answers] == [f"id-{i}" for i in range(100)]
    for place, answer in enumerate(answers):
        if place % 5 == 3:
            assert "no such version" in answer.error_message and not answer.infer_response.outputs
        else:
            assert not answer.error_message and answer.infer_response.raw_output_contents


def test_stream_carries_large_tensors_and_the_final_mark(client: Client) -> None:
    array = np.random.default_rng(0).normal(size=(200, 1000)).astype(np.float32)
    made = request("id-fp32", ("x", "FP32", array))
    made.parameters["triton_enable_empty_final_response"].bool_param = True
    (answer,) = client.stream(iter([made]))
    assert answer.infer_response.raw_output_contents[0] == array.tobytes()
    assert answer.infer_response.parameters["triton_final_response"].bool_param


def test_stream_may_be_cancelled_or_left(server: Server, client: Client) -> None:
    other = Client(server.grpc)
    stream = other.stream(iter([rows("slow")] * 50))
    next(stream)
    other.close()
    stream = client.stream(iter([rows("tiny")] * 50))
    next(stream)
    stream.cancel()
    assert client.infer(rows()).outputs


# -- a client that others wrote ----------------------------------------------------------------------


def test_tritonclient_works_with_models_and_errors(server: Server) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tiny")
        assert client.get_server_metadata().name == "slipway"
        assert client.get_model_metadata("tiny", as_json=True)["inputs"][0]["datatype"] == "FP32"
        assert client.get_model_config("tiny").config.input[0].data_type == model_config_pb2.TYPE_FP32
        assert client.get_model_repository_index().models
        assert client.get_inference_statistics("tiny").model_stats[0].name == "tiny"
        values = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
        tensor = triton.InferInput("x", [3, 4], "FP32")
        tensor.set_data_from_numpy(values)
        wanted = [triton.InferRequestedOutput("scores"), triton.InferRequestedOutput("label", class_count=0)]
        result = client.infer("tiny", [tensor], outputs=wanted, request_id="r", timeout=1000, priority=1)
        rest = server.client.post("/v2/models/tiny/infer", json={"inputs": [
            {"name": "x", "shape": [3, 4], "datatype": "FP32", "data": values.tolist()}
        ]}).json()  # fmt: skip
        assert np.allclose(result.as_numpy("scores").ravel(), rest["outputs"][1]["data"], atol=1e-6)
        assert result.as_numpy("label").tolist() == rest["outputs"][0]["data"]
        best = client.infer("tiny", [tensor], outputs=[triton.InferRequestedOutput("scores", class_count=2)])
        assert best.as_numpy("scores").shape == (3, 2)
        texts = triton.InferInput("x", [1, 2], "BYTES")
        texts.set_data_from_numpy(np.array([["a", "漢"]], dtype=object))
        assert client.infer("id-bytes", [texts]).as_numpy("y").tolist() == [[b"a", "漢".encode()]]
        bad = triton.InferInput("x", [1, 3], "FP32")
        bad.set_data_from_numpy(np.zeros((1, 3), np.float32))
        with pytest.raises(InferenceServerException, match="does not fit"):
            client.infer("tiny", [bad])
        got: list = []
        client.start_stream(lambda result, error: got.append((result, error)))
        for _ in range(5):
            client.async_stream_infer("tiny", [tensor])
        client.async_stream_infer("tiny", [bad])
        wait_until(lambda: len(got) == 6)
        client.stop_stream()
        assert [error is None for _, error in got] == [True] * 5 + [False]


# -- how it is started -------------------------------------------------------------------------------


def test_parent_does_not_import_grpc() -> None:
    code = "import sys, serving.__main__, serving.supervisor; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_server_says_so_in_one_sentence_when_the_grpc_port_is_busy(server: Server, model_folder: Path) -> None:
    port = server.grpc.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "serving", "--models", str(model_folder), "--port", "0", "--grpc-port", port]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == f"serving: port {port} on 127.0.0.1 is already in use."


def test_server_has_no_grpc_when_it_is_off(standalone: Server) -> None:
    assert standalone.grpc == "" and standalone.client.get("/healthz").status_code == 200
