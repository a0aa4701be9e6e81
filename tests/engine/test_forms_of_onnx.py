"""Artifacts made of an ONNX file: ORT files that the inference server loads, repositories that Triton reads."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from sklearn.datasets import load_digits
from tritonclient.grpc import model_config_pb2

from engine.errors import EngineError
from engine.export import tasks
from engine.export.base import exporter
from engine.export.triton_exporter import TritonExporter, config
from engine.formats import archive
from engine.formats.signature import tensor
from serving.model import ModelError, load_model
from tests.engine.conftest import Task

EXPORT, WRAP = "engine.export.tasks:export", "engine.export.tasks:wrap"


@pytest.mark.parametrize("level", ["basic", "extended"])
def test_ort_file_is_served_when_the_source_is_a_network(
    level: str, task: Task, digits_model: Path, digits_rows: Path
) -> None:
    result = task(EXPORT, {"exporter": "ort", "options": {"level": level}}, source=digits_model, rows=digits_rows)
    value = result.value
    assert value["parity"]["passed"] and value["parity"]["agreement"] == 1.0 and value["format"] == "ort"
    content = (result.files / "model.ort").read_bytes()
    assert content[4:8] == b"ORTM"
    served = load_model(content, "ort")
    assert served.warm() == "" and served.label == value["signature"]["outputs"][0]["name"]
    digits = load_digits().data[:20].astype(np.float32)
    wanted = onnxruntime.InferenceSession(result.files / "model.onnx").run(None, {"input": digits})
    given = served.run(served.output_names, {"input": digits})
    assert np.array_equal(given[0], wanted[0]) and np.allclose(given[1], wanted[1], atol=1e-6)
    with pytest.raises(ModelError):
        load_model(content, "onnx")


@pytest.mark.parametrize("name", ["iris_model", "diabetes_model"])
def test_ort_file_matches_when_the_model_is_of_another_kind(
    name: str, task: Task, request: pytest.FixtureRequest
) -> None:
    value = task(EXPORT, {"exporter": "ort"}, source=request.getfixturevalue(name)).value
    assert value["parity"]["passed"]


@pytest.mark.parametrize("name", ["ort", "triton"])
def test_artifact_is_the_same_when_it_is_made_again_of_the_onnx_file(
    name: str, task: Task, digits_onnx: Path, tmp_path: Path
) -> None:
    made = [task(WRAP, {"exporter": name}, file=digits_onnx) for _ in range(2)]
    files = [each.files / exporter(name).file_name for each in made]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert made[0].value["signature"]["inputs"][0]["shape"] == [-1, 64]
    (tmp_path / "bad.onnx").write_bytes(b"not ONNX at all")
    with pytest.raises(EngineError) as caught:
        task(WRAP, {"exporter": name}, file=tmp_path / "bad.onnx")
    assert caught.value.field == "file"


@pytest.mark.parametrize("name", ["ort", "triton"])
def test_exporter_takes_what_becomes_onnx_and_waits_to_be_asked(name: str) -> None:
    plugin: Any = exporter(name)
    assert plugin.why_not("sklearn") is None and plugin.why_not("onnx") is None and plugin.why_not("paddle")
    assert plugin.environment("pmml") == "pmml" and plugin.environment("sklearn") is None and plugin.on_request


def parsed(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_triton_repository_is_read_when_it_is_unpacked(
    task: Task, digits_model: Path, digits_rows: Path, tmp_path: Path
) -> None:
    params = {"exporter": "triton", "options": {"model_name": "digits", "max_batch_size": 8}}
    result = task(EXPORT, params, source=digits_model, rows=digits_rows)
    assert result.value["parity"]["passed"] and result.value["format"] == "triton"
    with tarfile.open(result.files / "triton.tar") as packed:
        assert packed.getnames() == ["digits/1/model.onnx", "digits/config.pbtxt"]
        assert {(each.mtime, each.uid, each.gid, each.mode) for each in packed} == {(0, 0, 0, 0o644)}
        packed.extractall(tmp_path, filter="data")
    read = parsed((tmp_path / "digits" / "config.pbtxt").read_text())
    assert (read.name, read.backend, read.max_batch_size) == ("digits", "onnxruntime", 8)
    assert read.HasField("dynamic_batching")
    assert (read.input[0].name, list(read.input[0].dims)) == ("input", [64])
    assert read.input[0].data_type == model_config_pb2.TYPE_FP32
    label, scores = read.output
    assert label.data_type == model_config_pb2.TYPE_INT64 and list(label.dims) == [1] and label.HasField("reshape")
    assert list(label.reshape.shape) == [] and list(scores.dims) == [10]
    session = onnxruntime.InferenceSession(tmp_path / "digits" / "1" / "model.onnx")
    digits = load_digits()
    predicted = session.run([label.name], {"input": digits.data.astype(np.float32)})[0]
    assert (predicted == digits.target).mean() > 0.9


def test_triton_does_not_batch_when_a_tensor_has_a_fixed_first_dimension() -> None:
    fixed = {"inputs": [tensor("x", "FP32", [1, 3])], "outputs": [tensor("y", "BYTES", [-1, 2])]}
    read = parsed(config(fixed, "m", 64))
    assert read.max_batch_size == 0 and not read.HasField("dynamic_batching")
    assert list(read.input[0].dims) == [1, 3] and list(read.output[0].dims) == [-1, 2]
    assert read.output[0].data_type == model_config_pb2.TYPE_STRING


@pytest.mark.parametrize("name", ['a "quoted" \\ name', "naïve\nname", "} input { name: "])
def test_triton_keeps_names_when_they_are_strange(name: str) -> None:
    read = parsed(config({"inputs": [tensor(name, "FP64", [-1, 1])], "outputs": [tensor("y", "FP64", [-1])]}, "m", 4))
    assert [each.name for each in read.input] == [name] and len(read.output) == 1


def test_triton_is_refused_when_an_output_is_no_tensor(task: Task, digits_files: dict[bool, Path]) -> None:
    with pytest.raises(EngineError, match="tensors only"):
        task(WRAP, {"exporter": "triton"}, file=digits_files[True])


def test_archive_is_the_same_when_only_times_and_rights_differ(tmp_path: Path) -> None:
    for index, name in enumerate(("one", "two")):
        (tmp_path / name / "b").mkdir(parents=True)
        for path in ("b/2", "a", "b/1"):
            (tmp_path / name / path).write_text(path)
            (tmp_path / name / path).chmod(0o600 if index else 0o755)
        archive.pack(tmp_path / name, tmp_path / f"{name}.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as packed:
        assert packed.getnames() == ["a", "b/1", "b/2"]


class Careless(TritonExporter):
    """Changes the bias of the last layer on the way from the ONNX file."""

    def wrap(self, onnx_file: Path, artifact: Path, described: dict[str, Any], options: Any) -> None:
        model = onnx.load(onnx_file)
        bias = next(each for each in model.graph.initializer if list(each.dims) in ([10], [1, 10]))
        wrongly = np.arange(10, dtype=np.float32).reshape(bias.dims)
        bias.CopyFrom(onnx.numpy_helper.from_array(wrongly, bias.name))
        wrong = artifact.with_name("wrong.onnx")
        onnx.save(model, wrong)
        super().wrap(wrong, artifact, described, options)


def test_message_says_that_the_onnx_file_is_right_when_only_what_is_made_of_it_is_not(
    digits_model: Path, tmp_path: Path
) -> None:
    plugin = Careless()
    with pytest.raises(EngineError, match="is right, so that Triton repository changed it"):
        tasks.convert(plugin, plugin.Options(), {}, {"source": digits_model}, tmp_path)
