"""Keras and TensorFlow models in their own environment: every format predicts the same."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_digits

from engine.errors import EngineError
from engine.export import base, environments, tasks
from engine.export.sources.base import sources
from engine.formats import archive
from engine.scan.source import scan
from tests.engine.conftest import ROOT, TOOLS, Task
from tests.engine.many_exports import Exports, exported

EXPORT = "engine.export.tasks:export"
IMAGES = "images.npz"
# {case: (model, exporter, options, rows)}
CASES: dict[str, tuple[str, str, dict[str, Any], str | None]] = {
    **{f"{model}-onnx": (model, "onnx", {}, IMAGES) for model in ("keras", "exported", "sequential", "module")},
    "pair-onnx": ("pair", "onnx", {}, "pair.csv"),
    **{f"{model}-onnx": (model, "onnx", {}, None) for model in ("lambda", "own")},
    "opset-15": ("keras", "onnx", {"opset": 15}, IMAGES),
    "opset-25": ("keras", "onnx", {"opset": 25}, IMAGES),
    **{f"{model}-saved": (model, "saved-model", {}, IMAGES) for model in ("keras", "exported", "sequential", "module")},
    **{f"{model}-tflite": (model, "tflite", {}, IMAGES) for model in ("keras", "module", "lstm", "both", "long")},
    "words-tflite": ("words", "tflite", {}, "texts.csv"),
}
Go = Callable[[str], tuple[dict[str, Any], Path]]
PROVE = ("tensorflow", "keras", "tf2onnx", "onnxruntime", "pandas", "pydantic", "yaml")


@pytest.fixture(scope="session")
def tensorflow_python(environments_root: Path) -> Path:
    """The TensorFlow environment, made from the lock as a worker does; 1.8 GB, so kept where someone says so."""
    return environments.prepare(ROOT / "locks" / "tensorflow.txt", environments_root, print, PROVE, TOOLS)


@pytest.fixture(scope="session")
def image_rows(models: Path) -> Path:
    x, y = load_digits(return_X_y=True)
    path = models / IMAGES
    np.savez(path, X=(x / 16).astype(np.float32).reshape(-1, 8, 8, 1)[:500], y=y[:500])
    return path


@pytest.fixture(scope="session")
def stored(models: Path, image_rows: Path, tensorflow_python: Path) -> Path:
    """Folders as mlflow writes them: keras, exported, sequential, module; calling, lambda and own are refused."""
    folder = models / "tensorflow"
    folder.mkdir()
    program = Path(__file__).with_name("tensorflow_files.py")
    done = subprocess.run(
        [tensorflow_python, "-I", "-B", program, image_rows, folder], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="session")
def exports(
    models: Path, image_rows: Path, stored: Path, tensorflow_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Exports]:
    """Of each exporter the models of CASES; importing TensorFlow takes longer than most of them."""
    (models / "pair.csv").write_text("age,size\n" + "".join(f"{i},{i * i}\n" for i in range(9)))
    (models / "texts.csv").write_text("text\ngood film\nbad film\n")
    cases: dict[str, dict[str, Any]] = {to: {} for _, to, _, _ in CASES.values()}
    for case, (model, to, options, rows) in CASES.items():
        source = str(stored.relative_to(models) / model)
        cases[to][case] = {"exporter": to, "options": options, "source": source, "rows": rows}
    return {
        to: exported(each, models, tensorflow_python, tmp_path_factory.mktemp(f"to-{to}")) for to, each in cases.items()
    }


@pytest.fixture(scope="session")
def go(exports: dict[str, Exports]) -> Go:
    """What the task said of a case, and where its files are."""
    return lambda case: exports[CASES[case][1]][case]


@pytest.mark.parametrize("model", ["keras", "exported", "sequential", "module"])
def test_scan_is_clean_and_names_the_framework_when_mlflow_stored_it(model: str, stored: Path) -> None:
    found = scan(stored / model)
    assert found["verdict"] == "clean", found["findings"]
    assert found["framework"] == ("keras" if model in {"keras", "exported"} else "tensorflow")
    assert found["flavor_version"] == ("3.15.1" if found["framework"] == "keras" else None)
    assert found["signature"]["inputs"][0]["shape"] == [-1, 8, 8, 1]


@pytest.mark.parametrize(
    ("model", "takes", "gives"),
    [
        ("keras", "image", ["digit"]),
        ("exported", "inputs", ["output_0"]),
        ("sequential", "input_layer", ["dense"]),
        ("module", "image", ["label", "probabilities"]),
    ],
)
def test_onnx_matches_and_takes_any_batch_when_the_source_is_a_network(
    model: str, takes: str, gives: list[str], go: Go, image_rows: Path
) -> None:
    value, files = go(f"{model}-onnx")
    assert value["parity"]["max_abs"] < 1e-5 and value["parity"]["rows"] == 500
    assert value["environment"] == "tensorflow" and value["opset"] == 18 and value["labels"] is None
    assert value["signature"]["inputs"] == [{"name": takes, "datatype": "FP32", "shape": [-1, 8, 8, 1]}]
    assert [each["name"] for each in value["signature"]["outputs"]] == gives
    # The worker's own runtime serves it.
    session = onnxruntime.InferenceSession(files / "model.onnx")
    for batch in (1, 7):
        outputs = session.run(None, {takes: np.load(image_rows)["X"][:batch]})
        assert outputs[-1].shape == (batch, 10) and np.allclose(outputs[-1].sum(axis=1), 1, atol=1e-5)


def test_message_names_the_layer_when_the_converter_drops_a_bias(tensorflow_python: Path, tmp_path: Path) -> None:
    program = Path(__file__).with_name("wrong_networks.py")
    given = [ROOT, "keras", tmp_path / "source", tmp_path / "rows.npz", tmp_path / "out"]
    done = subprocess.run([tensorflow_python, program, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("; the first output that differs is that of layer 'middle'."), done.stdout


def test_columns_go_to_the_input_of_their_name_when_there_are_several(go: Go) -> None:
    value, _ = go("pair-onnx")
    assert {each["name"] for each in value["signature"]["inputs"]} == {"age", "size"}
    assert value["parity"]["max_rel"] < 1e-5 and value["parity"]["rows"] == 9


def test_opset_is_kept_when_it_is_given(go: Go) -> None:
    value, _ = go("opset-15")
    assert value["opset"] == 15 and value["parity"]["passed"]
    with pytest.raises(EngineError, match="opset 18 at most"):
        go("opset-25")


@pytest.mark.parametrize("model", ["keras", "exported", "sequential", "module"])
def test_saved_model_matches_when_it_is_unpacked_and_loaded_again(
    model: str, go: Go, stored: Path, tmp_path: Path
) -> None:
    value, files = go(f"{model}-saved")
    assert value["format"] == "saved-model" and value["parity"]["max_abs"] < 1e-6
    assert value["signature"]["inputs"][0]["shape"] == [-1, 8, 8, 1]
    with tarfile.open(files / "saved-model.tar", "r:") as tar:
        entries = tar.getmembers()
    assert [each.name for each in entries] == [
        "1/saved_model.pb",
        "1/variables/variables.data-00000-of-00001",
        "1/variables/variables.index",
    ]
    assert {(each.mtime, each.uid, each.gid, each.mode) for each in entries} == {(0, 0, 0, 0o644)}
    archive.unpack(files / "saved-model.tar", tmp_path / "served")
    if model == "exported":
        original = stored / model / "data" / "model" / "saved_model.pb"
        assert (tmp_path / "served" / "1" / "saved_model.pb").read_bytes() == original.read_bytes()


@pytest.mark.parametrize("model", ["keras", "module"])
def test_tflite_matches_when_the_interpreter_runs_it(model: str, go: Go) -> None:
    value, files = go(f"{model}-tflite")
    assert value["format"] == "tflite" and value["parity"]["max_abs"] < 1e-5
    assert value["signature"]["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 8, 8, 1]}]
    assert (files / "model.tflite").read_bytes()[4:8] == b"TFL3"


@pytest.mark.parametrize(
    ("model", "verdict", "message", "code"),
    [
        ("lambda", "rejected", "code of its own", "untrusted"),
        ("own", "suspicious", "not part of Keras", "unsupported"),
    ],
)
def test_model_is_refused_in_one_sentence_when_it_brings_code(
    model: str, verdict: str, message: str, code: str, go: Go, stored: Path
) -> None:
    assert scan(stored / model)["verdict"] == verdict
    with pytest.raises(EngineError, match=message) as caught:
        go(f"{model}-onnx")
    assert caught.value.code == code and caught.value.message.count(".") == 1


def test_scan_rejects_a_saved_model_when_its_graph_calls_python(stored: Path) -> None:
    found = scan(stored / "calling")
    assert found["verdict"] == "rejected"
    assert "py_function" in found["findings"][0]["message"]


def test_error_names_the_package_when_the_environment_is_the_workers(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="tensorflow, which is not installed") as caught:
        tasks.export(params={"exporter": "onnx"}, inputs={"source": stored / "keras"}, out=tmp_path)
    assert caught.value.code == "environment"


def test_error_says_so_when_the_rows_do_not_fit(
    task: Task, stored: Path, digits_rows: Path, tensorflow_python: Path
) -> None:
    params = {"exporter": "saved-model", "target": "no"}  # leaves 64 pixels and the class
    with pytest.raises(EngineError, match="65 columns do not fit") as caught:
        task(EXPORT, params, source=stored / "keras", rows=digits_rows, python=tensorflow_python)
    assert caught.value.field == "rows"


@pytest.mark.parametrize("model", ["lstm", "both"])
def test_tflite_matches_when_recurrent_layers_are_written_out(model: str, go: Go) -> None:
    value, _ = go(f"{model}-tflite")
    assert value["parity"]["passed"] and value["parity"]["max_abs"] < 1e-5 and value["parity"]["rows"] == 500
    assert value["signature"]["outputs"][0]["shape"] == [-1, 10]


@pytest.mark.parametrize(
    ("model", "words"),
    [("words", "no built-in operation for .*StringSplitV2"), ("long", "goes 576 steps, and only up to 256")],
)
def test_tflite_names_what_it_lacks_when_a_model_cannot_be_written(model: str, words: str, go: Go) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        go(f"{model}-tflite")
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize("name", ["saved-model", "tflite"])
def test_exporter_says_why_not_when_the_framework_is_another(name: str) -> None:
    exporter = base.exporter(name)
    assert exporter.why_not("keras") is None and exporter.why_not("tensorflow") is None
    reason = exporter.why_not("sklearn")
    assert reason and "sklearn" in str(reason) and exporter.environment("keras") == "tensorflow"
    assert {"keras", "tensorflow"} <= sources().keys()


def test_lock_records_no_host_when_read() -> None:
    text = (ROOT / "locks" / "tensorflow.txt").read_text()
    assert "://" not in text and "--index" not in text and "tensorflow-cpu==2.21" in text
