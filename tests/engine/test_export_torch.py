"""PyTorch models as mlflow stores them, trained and converted in their own environment, proven in the worker's."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.datasets import load_digits

from engine.errors import EngineError
from engine.export import environments, installing
from engine.export.base import exporter, exporters
from engine.sandbox import Limits
from engine.scan.source import scan
from engine.scan.torch_zip import scan_torch
from engine.scan.verdict import Findings
from tests.engine.conftest import ROOT, Task
from tests.engine.many_exports import Exports, exported

EXPORT = "engine.export.tasks:export"
NAMED = {"archive_name": "digits", "archive_version": "2.1"}
LIMITS = Limits(seconds=120, memory_mb=6144)
REFUSED = [
    ("absent-class", "onnx", "needs the module absent_code, which is not here"),
    ("main-class", "onnx", "class Branching is not here: log"),
    ("weights", "onnx", "holds weights but no model"),
    ("one-row", "torchscript", "takes 1 row at a time.*two or more rows"),
    ("one-row", "pt2", "takes 1 row at a time.*two or more rows"),
    ("script", "pt2", "takes no TorchScript"),
    ("branching", "pt2", "cannot follow this model"),
    ("pickled", "pmml", "scikit-learn models are"),
]
# {case: (model, exporter, options)}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "program-onnx": ("program", "onnx", {}),
    "pickled-onnx": ("pickled", "onnx", {}),
    "script-onnx": ("script", "onnx", {}),
    "pickled-onnx-15": ("pickled", "onnx", {"opset": 15}),
    "one-row-onnx": ("one-row", "onnx", {}),
    "program-torchscript": ("program", "torchscript", {}),
    "pickled-torchscript": ("pickled", "torchscript", {}),
    "script-torchscript": ("script", "torchscript", {}),
    "branching-torchscript": ("branching", "torchscript", {}),
    "program-pt2": ("program", "pt2", {"strict": False}),
    "pickled-pt2": ("pickled", "pt2", {"strict": False}),
    "pickled-pt2-strict": ("pickled", "pt2", {"strict": True}),
    "program-mar": ("program", "mar", NAMED),
    **{f"{name}-{to}": (name, to, {}) for name, to, _ in REFUSED},
}
LOADED = ("program-torchscript", "program-pt2", "pickled-pt2", "pickled-pt2-strict")
Go = Callable[[str], tuple[dict[str, Any], Path]]


@pytest.fixture(scope="session")
def torch_models(torch_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one MLflow model folder for each way of storing."""
    folder = tmp_path_factory.mktemp("torch-models")
    x, y = load_digits(return_X_y=True)
    np.savez(folder / "rows.npz", X=x, y=y)
    command = [str(torch_python), str(Path(__file__).with_name("torch_models.py")), str(folder / "rows.npz")]
    done = subprocess.run(
        [*command, str(folder), sysconfig.get_path("purelib")], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "cuda None" in done.stdout
    return folder


@pytest.fixture(scope="session")
def pixels(torch_models: Path) -> Path:
    """Rows as the models were trained on them: 64 columns from 0 to 1."""
    x, y = load_digits(return_X_y=True)
    np.savez(torch_models / "pixels.npz", X=(x / 16).astype(np.float32), y=y)
    return torch_models / "pixels.npz"


@pytest.fixture(scope="session")
def exports(
    torch_models: Path, pixels: Path, torch_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Exports]:
    """Of each exporter the models of CASES; importing torch takes longer than most of them."""
    cases: dict[str, dict[str, Any]] = {to: {} for _, to, _ in CASES.values()}
    for case, (name, to, options) in CASES.items():
        cases[to][case] = {"exporter": to, "options": options, "source": name, "rows": pixels.name}
    return {
        to: exported(each, torch_models, torch_python, tmp_path_factory.mktemp(f"to-{to}"), memory_mb=LIMITS.memory_mb)
        for to, each in cases.items()
    }


@pytest.fixture(scope="session")
def go(exports: dict[str, Exports]) -> Go:
    """What the task said of a case, and the file it wrote."""

    def export(case: str) -> tuple[dict[str, Any], Path]:
        value, files = exports[CASES[case][1]][case]
        return value, files / value["file"]

    return export


LOAD = """
import json, sys, torch
load = {".pt": torch.jit.load, ".pt2": lambda file: torch.export.load(file).module()}
models = {case: load[file[file.rindex("."):]](file) for case, file in json.load(sys.stdin).items()}
print(json.dumps({case: [list(m(torch.zeros(n, 1, 8, 8)).shape) for n in (1, 7)] for case, m in models.items()}))
"""


@pytest.fixture(scope="session")
def shapes(go: Go, torch_python: Path) -> dict[str, list[list[int]]]:
    """What torch itself answers to one and to seven rows when it loads what was written."""
    files = {case: str(go(case)[1]) for case in LOADED}
    command = [str(torch_python), "-c", LOAD]
    done = subprocess.run(command, input=json.dumps(files), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "converter", "shape"),
    [
        ("program", "torch.export", [-1, 1, 8, 8]),
        ("pickled", "torch.export", [-1, 1, 8, 8]),
        ("script", "torchscript", [-1, 64]),
    ],
)
def test_onnx_matches_and_its_batch_is_free_when_the_source_is_pytorch(
    name: str, converter: str, shape: list[int], go: Go, pixels: Path
) -> None:
    value, file = go(f"{name}-onnx")
    assert value["parity"]["passed"] and value["parity"]["max_abs"] < 1e-4 and value["parity"]["rows"] == 1797
    assert value["environment"] == "torch" and value["opset"] == 20 and value["labels"] is None
    assert value["converter"] == converter and bool(value["converter_reason"]) == (converter == "torchscript")
    assert value["signature"]["inputs"] == [{"name": "input_0", "datatype": "FP32", "shape": shape}]
    assert value["signature"]["outputs"] == [{"name": "output_0", "datatype": "FP32", "shape": [-1, 10]}]
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]
    assert not any(each.external_data for each in onnx.load(file, load_external_data=False).graph.initializer)
    stored = np.load(pixels)
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    x = stored["X"].reshape([-1, *shape[1:]])
    found = {size: session.run(None, {"input_0": x[:size]})[0] for size in (1, 7, len(x))}
    assert found[1].shape == (1, 10) and found[7].shape == (7, 10)
    assert np.abs(found[7][:1] - found[1]).max() < 1e-4
    assert (found[len(x)].argmax(axis=1) == stored["y"]).mean() > 0.85


@pytest.mark.parametrize("to", ["onnx", "triton"])
def test_message_names_the_layer_when_the_converter_changes_an_epsilon(
    to: str, torch_models: Path, torch_python: Path, pixels: Path, tmp_path: Path
) -> None:
    program = Path(__file__).with_name("wrong_networks.py")
    given = [ROOT, "torch", torch_models / "pickled", pixels, tmp_path / "out", to]
    done = subprocess.run([torch_python, program, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("; the first output that differs is that of layer '1'."), done.stdout


def test_onnx_is_written_by_the_tracer_when_the_opset_is_old(go: Go) -> None:
    value, _ = go("pickled-onnx-15")
    assert value["opset"] == 15 and value["converter"] == "torchscript" and "below 18" in value["converter_reason"]


def test_onnx_has_the_programs_batch_when_that_is_fixed(go: Go) -> None:
    value, _ = go("one-row-onnx")
    assert value["signature"]["inputs"][0]["shape"] == [1, 64] and value["parity"]["max_abs"] < 1e-4


@pytest.mark.parametrize(
    ("name", "method"), [("program", "trace"), ("pickled", "script"), ("script", "as stored"), ("branching", "trace")]
)
def test_torchscript_matches_when_the_source_is_pytorch(
    name: str, method: str, go: Go, shapes: dict[str, list[list[int]]]
) -> None:
    if name == "branching":
        # Its class came without its text, and a trace takes one way for all rows.
        with pytest.raises(EngineError, match="predicts something else"):
            go(f"{name}-torchscript")
        return
    value, file = go(f"{name}-torchscript")
    assert value["parity"]["passed"] and value["parity"]["max_abs"] < 1e-4 and value["method"] == method
    assert value["format"] == "torchscript" and file.name == "model.pt" and value["opset"] is None
    assert value["signature"]["outputs"] == [{"name": "output_0", "datatype": "FP32", "shape": [-1, 10]}]
    if name == "program":
        assert shapes["program-torchscript"] == [[1, 10], [7, 10]]


@pytest.mark.parametrize(
    ("name", "method", "strict"),
    [("program", "as stored", False), ("pickled", "torch.export", False), ("pickled", "torch.export", True)],
)
def test_exported_program_matches_and_its_batch_is_free_when_the_source_is_pytorch(
    name: str, method: str, strict: bool, go: Go, shapes: dict[str, list[list[int]]]
) -> None:
    case = f"{name}-pt2-strict" if strict else f"{name}-pt2"
    value, file = go(case)
    assert value["parity"]["passed"] and value["parity"]["max_abs"] < 1e-4 and value["parity"]["rows"] == 1797
    assert value["format"] == "pt2" and file.name == "model.pt2" and value["method"] == method
    assert value["signature"]["outputs"] == [{"name": "output_0", "datatype": "FP32", "shape": [-1, 10]}]
    assert shapes[case] == [[1, 10], [7, 10]]
    findings = Findings()
    scan_torch(file, "model.pt2", findings)
    assert findings.verdict == "clean", findings.items


def test_mar_holds_what_torchserve_reads_when_the_source_is_pytorch(go: Go) -> None:
    value, file = go("program-mar")
    assert value["parity"]["passed"] and value["parity"]["max_abs"] < 1e-4 and value["parity"]["rows"] == 1797
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    assert manifest["model"] == {
        "modelName": "digits", "serializedFile": "model.pt", "handler": "slipway_handler.py", "modelVersion": "2.1",
    }  # fmt: skip
    assert {"model.pt", "slipway_handler.py", "signature.json"} < set(names)
    assert manifest["runtime"] == "python"


def test_handler_answers_each_request_when_some_are_wrong(go: Go, torch_python: Path, tmp_path: Path) -> None:
    _, file = go("program-mar")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path / "mar")
    code = """
import json, sys, types
sys.path.insert(0, sys.argv[1])
from slipway_handler import SlipwayHandler
manifest = json.load(open(sys.argv[1] + "/MAR-INF/MANIFEST.json"))
handler, said = SlipwayHandler(), []
given = {"model_dir": sys.argv[1], "gpu_id": None}
handler.initialize(types.SimpleNamespace(system_properties=given, manifest=manifest))
one = lambda n, **more: {"name": "input_0", "datatype": "FP32", "shape": [n, 1, 8, 8], "data": [0.5] * 64 * n, **more}
bodies = [
    {"inputs": [one(1)], "id": "a"}, {"inputs": [one(3)]}, b"{", {"inputs": []}, {"inputs": [one(1, shape=[1, 64])]},
    {"inputs": [one(1, data=[1])]}, {"inputs": [one(1, datatype="INT64")]}, {"inputs": [one(1, data=["x"] * 64)]}, [],
    {"inputs": [{"name": "input_0", "data": [[[[0.5] * 8] * 8]]}]},
]
context = types.SimpleNamespace(set_response_status=lambda code, phrase, idx: said.append((idx, code)))
answers = handler.handle([{"body": body} for body in bodies], context)
print(json.dumps([answers, sorted(said)]))
"""
    done = subprocess.run([str(torch_python), "-c", code, str(tmp_path / "mar")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers, said = json.loads(done.stdout)
    assert said == [[index, 400] for index in range(2, 9)]
    assert all(set(answer) == {"error"} and answer["error"] for answer in answers[2:9])
    assert answers[0]["id"] == "a" and answers[0]["outputs"][0]["shape"] == [1, 10]
    assert answers[1]["outputs"][0]["shape"] == [3, 10]
    np.testing.assert_allclose(answers[1]["outputs"][0]["data"][:10], answers[0]["outputs"][0]["data"], atol=1e-5)
    np.testing.assert_allclose(answers[9]["outputs"][0]["data"], answers[0]["outputs"][0]["data"], atol=1e-5)


@pytest.mark.parametrize(("name", "to", "words"), REFUSED)
def test_error_says_what_to_do_when_a_model_cannot_be_taken(name: str, to: str, words: str, go: Go) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        go(f"{name}-{to}")
    assert caught.value.field in {"file", "exporter"} and "\n" not in caught.value.message


def test_rows_are_refused_when_their_number_of_columns_is_wrong(
    task: Task, torch_models: Path, torch_python: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "few.npz", X=np.zeros((5, 63), np.float32))
    with pytest.raises(EngineError, match="63 columns do not fit") as caught:
        task(EXPORT, {"exporter": "onnx"}, source=torch_models / "program", rows=tmp_path / "few.npz",
             python=torch_python, limits=LIMITS)  # fmt: skip
    assert caught.value.field == "rows"


def test_example_of_the_model_is_used_when_no_rows_are_given(
    task: Task, torch_models: Path, torch_python: Path
) -> None:
    value = task(
        EXPORT, {"exporter": "onnx"}, source=torch_models / "program", python=torch_python, limits=LIMITS
    ).value
    assert value["rows_from"] == "example" and value["parity"]["rows"] == 4 and value["parity"]["passed"]


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("program", "clean"),
        ("pickled", "clean"),
        ("script", "clean"),
        ("weights", "clean"),
        ("absent-class", "suspicious"),
        ("main-class", "suspicious"),
        ("branching", "rejected"),
    ],
)
def test_scan_sorts_models_when_torch_itself_wrote_them(name: str, verdict: str, torch_models: Path) -> None:
    found = scan(torch_models / name)
    assert found["verdict"] == verdict, found["findings"]
    assert found["framework"] == "pytorch" and found["flavor_version"] == "2.13.0+cpu"
    if name == "branching":
        # A class of its own travels as code in the pickle; the default way of saving carries none.
        assert any("serialization_format='pt2'" in each["message"] for each in found["findings"])


def test_exporters_say_whom_they_serve_when_asked() -> None:
    able = {name for name, each in exporters().items() if each.why_not("pytorch") is None}
    assert able == {"onnx", "ort", "triton", "torchscript", "pt2", "mar"}
    assert {exporter(name).environment("pytorch") for name in able} == {"torch"}
    assert "model of sklearn" in str(exporter("torchscript").why_not("sklearn"))
    assert "model of sklearn" in str(exporter("mar").why_not("sklearn"))
    assert "ExportedProgram" in str(exporter("pt2").why_not("sklearn"))


def test_environment_holds_no_gpu_package_when_torch_is_prepared(torch_python: Path) -> None:
    site = torch_python.parents[1] / "lib"
    names = [path.name for path in site.glob("python*/site-packages/*")]
    assert "torch" in names and not [name for name in names if name.startswith(("nvidia", "cuda", "triton"))]
    assert environments.is_prepared(ROOT / "locks" / "torch.txt", torch_python.parents[2])


def fake_torch(folder: Path, cuda: str | None) -> tuple[Path, str]:
    """(a wheel that calls itself torch, its SHA-256)."""
    import hashlib

    wheel = folder / "torch-2.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("torch/__init__.py", "raise ImportError('libcudart is missing')")
        archive.writestr("torch/version.py", f"cuda = {cuda!r}")
        archive.writestr("torch-2.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 2.0\n")
        archive.writestr("torch-2.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("torch-2.0.dist-info/RECORD", "")
    return wheel, hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("cuda", "hashed", "words"),
    [("12.8", True, "CUDA build of torch"), (None, False, "pip found no build that pinned.pip allows")],
)
def test_environment_is_refused_when_pip_has_no_cpu_build(
    cuda: str | None, hashed: bool, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if installing.has_gpu():
        pytest.skip("a CUDA build is welcome where there is a GPU")
    _, digest = fake_torch(tmp_path, cuda)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lock = tmp_path / "pinned.txt"
    lock.write_text("")
    lock.with_suffix(".pip").write_text(f"torch==2.0 --hash=sha256:{digest if hashed else '0' * 64}\n")
    with pytest.raises(EngineError, match=words) as caught:
        environments.prepare(lock, tmp_path / "root")
    assert caught.value.code == "environment" and "PIP_FIND_LINKS" in caught.value.message
    assert [path.name for path in (tmp_path / "root").iterdir() if path.is_dir()] == []


def test_environment_is_another_when_what_pip_installs_changes(tmp_path: Path) -> None:
    lock = tmp_path / "pinned.txt"
    lock.write_text("")
    before = environments.digest_of(lock)
    lock.with_suffix(".pip").write_text("torch==1\n")
    assert environments.digest_of(lock) != before


def test_lock_names_no_gpu_package_when_read() -> None:
    lock, pinned = ((ROOT / "locks" / name).read_text() for name in ("torch.txt", "torch.pip"))
    assert "://" not in lock and "--index" not in lock and "nvidia" not in lock and "\ntorch==" not in lock
    assert "torch==2.13.0+cpu" in pinned and "://" not in pinned and pinned.count("--hash=sha256:") == 6
