"""Model folders from strangers, read as data."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.scan.source import scan
from tests.engine.conftest import Task

SCAN = "engine.scan.tasks:scan_source"
Make = Callable[..., Path]


def levels(found: dict[str, Any]) -> dict[str, str]:
    return {each["message"]: each["level"] for each in found["findings"]}


def test_verdict_is_clean_when_mlflow_saved_skops(task: Task, digits_model: Path) -> None:
    found = task(SCAN, source=digits_model).value
    assert found["verdict"] == "clean" and found["framework"] == "sklearn"
    assert found["flavor_version"] == "1.9.0"
    assert found["signature"]["inputs"] == [{"name": "input_0", "datatype": "FP64", "shape": [-1, 64]}]
    assert found["signature"]["outputs"][0]["datatype"] == "INT64"
    assert "scikit-learn==1.9.0" in found["requirements"]


@pytest.mark.parametrize("name", ["iris_model", "text_model", "mixed_model", "diabetes_model"])
def test_verdict_is_clean_when_the_model_is_plain_sklearn(name: str, request: pytest.FixtureRequest) -> None:
    found = scan(request.getfixturevalue(name))
    assert found["verdict"] == "clean", found["findings"]
    assert found["signature"]["inputs"]


class Reaches:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def _resolve_name() -> bytes:
    import pkgutil

    return pickle.dumps(Reaches(pkgutil.resolve_name, "os:system"))


def _import_module() -> bytes:
    import importlib

    return pickle.dumps(Reaches(importlib.import_module, "os"))


HOSTILE_PICKLES: dict[str, Callable[[], bytes]] = {
    "os.system": lambda: pickle.dumps(Reaches(os.system, "true")),
    "protocol 0": lambda: b"cos\nsystem\n(S'true'\ntR.",
    "import_module": _import_module,
    "resolve_name": _resolve_name,
    "eval": lambda: pickle.dumps(Reaches(eval, "1")),
    "getattr": lambda: pickle.dumps(Reaches(getattr, 1, "real")),
    "numpy.fromfile": lambda: pickle.dumps(Reaches(np.fromfile, "/etc/passwd")),
    "numpy.load": lambda: pickle.dumps(Reaches(np.load, "/etc/passwd")),
    "second pickle": lambda: pickle.dumps({"a": 1}) + pickle.dumps(Reaches(os.system, "true")),
    "nested": lambda: pickle.dumps([{"a": {"b": Reaches(os.system, "true")}}]),
    "truncated": lambda: pickle.dumps({"a": list(range(100))})[:-20],
    "noise": lambda: b"\x80\x04" + np.random.default_rng(3).bytes(400),
}


@pytest.mark.parametrize("name", HOSTILE_PICKLES)
def test_verdict_is_rejected_when_a_pickle_reaches_out(name: str, mlflow_folder: Make) -> None:
    found = scan(mlflow_folder({"model.pkl": HOSTILE_PICKLES[name]()}))
    assert found["verdict"] == "rejected", found["findings"]


def test_hostile_pickles_stay_asleep_when_scanned(mlflow_folder: Make, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    scan(mlflow_folder({"model.pkl": pickle.dumps(Reaches(os.system, f"touch {mark}"))}))
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".onnx", ".bin", ".npy", ".txt"])
def test_verdict_is_rejected_when_a_pickle_has_another_name(suffix: str, mlflow_folder: Make) -> None:
    model = pickle.dumps({"a": 1})
    found = scan(mlflow_folder({"model.pkl": model, f"weights{suffix}": model}))
    assert found["verdict"] == "rejected"
    assert levels(found)["This is a pickle under another name."] == "rejected"


def test_verdict_is_suspicious_when_the_class_is_somebodys_own(mlflow_folder: Make) -> None:
    content = pickletools.optimize(b"\x80\x02cmy_company.models\nScorer\nq\x00)\x81q\x01.")
    found = scan(mlflow_folder({"model.pkl": content}))
    assert found["verdict"] == "suspicious"
    assert any("my_company.models.Scorer" in text for text in levels(found))


def test_verdict_is_suspicious_when_skops_holds_an_own_type(mlflow_folder: Make) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    buffer = io.BytesIO(skops.io.dumps(FunctionTransformer(levels)))
    mlmodel = '{"flavors": {"sklearn": {"pickled_model": "model.skops"}}}'
    found = scan(mlflow_folder({"model.skops": buffer.getvalue()}, mlmodel))
    assert found["verdict"] == "suspicious"


def test_verdict_is_rejected_when_links_are_inside(mlflow_folder: Make) -> None:
    folder = mlflow_folder({"model.pkl": pickle.dumps(1)})
    (folder / "weights").symlink_to("/etc/passwd")
    assert levels(scan(folder)) == {"Links and special files are not allowed.": "rejected"}
    (folder / "weights").unlink()
    os.mkfifo(folder / "pipe")
    assert scan(folder)["verdict"] == "rejected"
    (folder / "pipe").unlink()
    os.link(folder / "model.pkl", folder / "hard.pkl")
    assert scan(folder)["verdict"] == "rejected"


def _archive(names: list[str], size: int = 10) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, b"\0" * size)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "content",
    [_archive(["../x"]), _archive(["/x"]), _archive(["a", "A"]), _archive(["a"], 300_000_000), _archive(["a"])[:-30]],
    ids=["parent", "absolute", "case", "bomb", "truncated"],
)
def test_verdict_is_rejected_when_a_model_archive_is_hostile(content: bytes, mlflow_folder: Make) -> None:
    mlmodel = '{"flavors": {"sklearn": {"pickled_model": "model.skops"}}}'
    assert scan(mlflow_folder({"model.skops": content}, mlmodel))["verdict"] == "rejected"


def test_verdict_is_rejected_when_an_archive_or_program_lies_inside(mlflow_folder: Make) -> None:
    for content in (_archive(["x"]), b"\x1f\x8b\x08aaaa", b"\x7fELFaaaa"):
        folder = mlflow_folder({"model.pkl": pickle.dumps(1), "extra.dat": content})
        assert scan(folder)["verdict"] == "rejected"
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
BAD_YAML = {
    "bomb": BOMB,
    "python tag": "flavors: !!python/object/apply:os.system ['true']\n",
    "deep": "a: " + "[" * 500 + "]" * 500,
    "list": "[1, 2]",
    "broken": "a: [1",
    "no flavors": "a: 1",
    "long": "a: '" + "x" * 1_100_000 + "'",
    "binary": "\x00\x01",
    "outside": '{"flavors": {"sklearn": {"pickled_model": "../../../etc/passwd"}}}',
    "missing": '{"flavors": {"sklearn": {"pickled_model": "other.pkl"}}}',
    "bad signature": '{"flavors": {"sklearn": {"pickled_model": "model.pkl"}}, "signature": {"inputs": "[{}]"}}',
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_error_names_mlmodel_when_it_is_hostile(name: str, mlflow_folder: Make) -> None:
    with pytest.raises(EngineError) as caught:
        scan(mlflow_folder({"model.pkl": pickle.dumps(1)}, BAD_YAML[name]))
    assert caught.value.field == "file"
    assert "Traceback" not in caught.value.message and "/etc" not in caught.value.message


def test_loader_module_is_noted_when_it_is_foreign(mlflow_folder: Make) -> None:
    mlmodel = (
        '{"flavors": {"python_function": {"loader_module": "evil", "code": "code"}, '
        '"sklearn": {"pickled_model": "model.pkl"}}}'
    )
    found = scan(mlflow_folder({"model.pkl": pickle.dumps(1)}, mlmodel))
    assert levels(found)["loader_module evil is not used here."] == "suspicious"


def test_requirements_are_plain_names_when_lines_are_not(mlflow_folder: Make) -> None:
    text = b"numpy==2.1\n--index-url http://evil\n-r other.txt\ngit+https://x/y\nscipy>=1 ; python_version>'3'\n# c\n"
    found = scan(mlflow_folder({"model.pkl": pickle.dumps(1), "requirements.txt": text}))
    assert found["requirements"] == ["numpy==2.1", "scipy>=1 ; python_version>'3'"]
    assert found["verdict"] == "suspicious"


def test_onnx_signature_is_read_when_there_is_only_a_file(tmp_path: Path, digits_onnx: Path) -> None:
    folder = tmp_path / "lone"
    folder.mkdir()
    (folder / "m.onnx").write_bytes(digits_onnx.read_bytes())
    found = scan(folder)
    assert found["verdict"] == "clean" and found["framework"] == "onnx"
    assert found["signature"]["inputs"][0]["shape"] == [-1, 64]


def test_error_says_so_when_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no MLmodel"):
        scan(tmp_path)
