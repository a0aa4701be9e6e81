"""XGBoost and LightGBM models become ONNX that predicts what the libraries themselves predict."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest

from engine.errors import EngineError
from engine.export import base, environments
from engine.export.sources.base import source_of
from engine.scan.source import scan
from tests.engine.conftest import ROOT, TOOLS, Task
from tests.engine.many_exports import Exports, exported

EXPORT = "engine.export.tasks:export"
LOCK = ROOT / "locks" / "boosting.txt"
CLASSIFIERS = {
    "xgboost-classifier-cancer": 2, "xgboost-classifier-iris": 3, "xgboost-classifier-holes": 2,
    "xgboost-classifier-early": 3, "xgboost-booster-cancer": 2, "xgboost-booster-iris": 3,
    "lightgbm-classifier-cancer": 2, "lightgbm-classifier-iris": 3, "lightgbm-classifier-bool": 2,
    "lightgbm-classifier-holes": 2, "lightgbm-classifier-early": 3, "lightgbm-booster-cancer": 2,
    "lightgbm-booster-iris": 3, "lightgbm-booster-edges": 3,
}  # fmt: skip
REGRESSIONS = [
    "xgboost-regressor-diabetes", "xgboost-booster-poisson", "lightgbm-regressor-diabetes",
    "lightgbm-booster-diabetes",
]  # fmt: skip
REFUSED = {
    "xgboost-refused-forest": "num_parallel_tree",
    "xgboost-refused-dart": "kind dart",
    "xgboost-refused-targets": "several targets",
    "lightgbm-refused-zero": "zero_as_missing",
    "lightgbm-refused-forest": "random forests",
    "lightgbm-refused-sigmoid": "sigmoid 2",
    "lightgbm-refused-ova": "multiclassova",
    "lightgbm-refused-linear": "linear trees",
}
WRONG: dict[str, tuple[str, dict[str, str], str]] = {
    "xgboost-class": ("xgboost-booster-iris", {"model_class": "os.system"}, "none of XGBoost's own"),
    "xgboost-damaged": ("xgboost-booster-iris", {"data": "MLmodel"}, "XGBoost cannot read"),
    "xgboost-outside": ("xgboost-booster-iris", {"data": "../../rows.csv"}, "points outside"),
    "lightgbm-damaged": ("lightgbm-booster-iris", {"data": "MLmodel"}, "LightGBM cannot read"),
    "lightgbm-missing": ("lightgbm-classifier-iris", {"data": "missing.skops"}, "is missing"),
}
_WORDS, _FEW = "a,b,c,d\n1,red,2,1\n", "a,b\n1,2\n"
UNFIT = {
    "xgboost-words": ("xgboost-booster-iris", _WORDS, "numbers only, and the column 'b'"),
    "lightgbm-words": ("lightgbm-booster-iris", _WORDS, "numbers only, and the column 'b'"),
    "xgboost-columns": ("xgboost-booster-iris", _FEW, "have 2 columns, the model takes 4"),
    "lightgbm-columns": ("lightgbm-booster-iris", _FEW, "have 2 columns, the model takes 4"),
}


@pytest.fixture(scope="session")
def boosting_python(environments_root: Path) -> Path:
    """The environment of XGBoost and LightGBM, made from the lock as a worker does."""
    return environments.prepare(LOCK, environments_root, print, ("xgboost", "lightgbm", "onnxmltools"), TOOLS)


@pytest.fixture(scope="session")
def boosted(boosting_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a model: `source`, `rows.csv`, `expected.npy`."""
    folder = tmp_path_factory.mktemp("boosted")
    script = ROOT / "tests" / "engine" / "boosted_models.py"
    subprocess.run([boosting_python, "-W", "ignore", script, folder], check=True, timeout=120)
    return folder


@pytest.fixture(scope="session")
def exports(boosted: Path, boosting_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """All models with their rows, and each case in REFUSED, WRONG and UNFIT."""
    cases: dict[str, dict[str, Any]] = {
        name: {"source": f"{name}/source", "rows": f"{name}/rows.csv"}
        for name in [*CLASSIFIERS, *REGRESSIONS, "xgboost-booster-winner"]
    }
    cases |= {name: {"source": f"{name}/source"} for name in REFUSED}
    for case, (name, block, _) in WRONG.items():
        folder = shutil.copytree(boosted / name / "source", boosted / "wrong" / case)
        described = json.loads((folder / "MLmodel").read_text())
        described["flavors"][name.split("-")[0]] |= block
        (folder / "MLmodel").write_text(json.dumps(described))
        cases[case] = {"source": f"wrong/{case}"}
    for case, (name, text, _) in UNFIT.items():
        (boosted / "wrong" / f"{case}.csv").write_text(text)
        cases[case] = {"source": f"{name}/source", "rows": f"wrong/{case}.csv"}
    asked = {name: {"exporter": "onnx", **case} for name, case in cases.items()}
    return exported(asked, boosted, boosting_python, tmp_path_factory.mktemp("exports"))


def refusal(exports: Exports, case: str) -> EngineError:
    with pytest.raises(EngineError) as caught:
        exports[case]
    return caught.value


def predicted(path: Path, rows: Any) -> list[Any]:
    return onnxruntime.InferenceSession(path).run(None, {"input": rows.astype(np.float32)})


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_onnx_gives_the_same_classes_when_trees_are_boosted(name: str, boosted: Path, exports: Exports) -> None:
    folder = boosted / name
    value, files = exports[name]
    parity = value["parity"]
    rows, expected = pd.read_csv(folder / "rows.csv").to_numpy(), np.load(folder / "expected.npy")
    assert parity["passed"] and parity["max_abs"] < 1e-5 and parity["agreement"] == 1.0
    assert parity["rows"] == len(rows) and value["rows_from"] == "rows" and value["environment"] == "boosting"
    assert value["signature"]["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, rows.shape[1]]}]
    assert [each["shape"] for each in value["signature"]["outputs"]] == [[-1], [-1, CLASSIFIERS[name]]]
    # What the library said where it was trained, without any code of ours between.
    expected = expected if expected.ndim == 2 else np.column_stack([1 - expected, expected])
    for start, batch in [(0, len(rows)), (0, 1), (3, 7)]:
        labels, scores = predicted(files / "model.onnx", rows[start : start + batch])
        assert np.abs(scores - expected[start : start + batch]).max() < 1e-5
        names = [value["labels"][index] for index in expected[start : start + batch].argmax(axis=1)]
        assert list(labels) == [int(each) if isinstance(each, bool) else each for each in names]


@pytest.mark.parametrize("name", REGRESSIONS)
def test_onnx_gives_the_same_numbers_when_trees_are_boosted(name: str, boosted: Path, exports: Exports) -> None:
    folder = boosted / name
    value, files = exports[name]
    rows, expected = pd.read_csv(folder / "rows.csv").to_numpy(), np.load(folder / "expected.npy")
    assert value["parity"]["passed"] and value["parity"]["max_rel"] < 1e-5
    assert value["labels"] is None and value["parity"]["agreement"] is None
    for start, batch in [(0, len(rows)), (0, 1), (3, 7)]:
        (numbers,) = predicted(files / "model.onnx", rows[start : start + batch])
        assert numbers.shape == (batch, 1)
        assert np.allclose(numbers[:, 0], expected[start : start + batch], rtol=1e-5, atol=1e-5)


def test_onnx_gives_probabilities_when_a_booster_only_names_the_winner(boosted: Path, exports: Exports) -> None:
    folder = boosted / "xgboost-booster-winner"
    value, files = exports[folder.name]
    assert value["parity"]["passed"] and value["parity"]["agreement"] == 1.0
    labels, scores = predicted(files / "model.onnx", pd.read_csv(folder / "rows.csv").to_numpy())
    assert np.array_equal(labels, np.load(folder / "expected.npy")) and np.allclose(scores.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("name", "asked", "opset"), [("xgboost-booster-iris", None, 15), ("lightgbm-classifier-iris", 13, 13)]
)
def test_opset_is_recorded_when_rows_are_invented(
    name: str, asked: int | None, opset: int, task: Task, boosted: Path, boosting_python: Path
) -> None:
    options = {"opset": asked} if asked else {}
    result = task(
        EXPORT, {"exporter": "onnx", "options": options}, source=boosted / name / "source", python=boosting_python
    )
    value = result.value
    assert value["opset"] == opset and value["rows_from"] == "synthesized" and value["parity"]["rows"] == 256
    model = onnx.load(result.files / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {each.domain: each.version for each in model.opset_import}[""] == opset
    assert all(output.type.HasField("tensor_type") for output in model.graph.output)


def test_labels_are_kept_when_rows_are_parquet_with_a_target_of_words(
    task: Task, boosted: Path, boosting_python: Path
) -> None:
    frame = pd.read_csv(boosted / "lightgbm-classifier-iris" / "rows.csv")
    path = boosted / "labelled.parquet"
    frame.assign(kind="setosa").to_parquet(path)
    value = task(
        EXPORT, {"exporter": "onnx", "target": "kind"}, source=boosted / "lightgbm-classifier-iris" / "source",
        rows=path, python=boosting_python,
    ).value  # fmt: skip
    assert value["labels"] == ["setosa", "versicolor", "virginica"] and value["parity"]["passed"]


@pytest.mark.parametrize("name", REFUSED)
def test_export_says_why_when_onnxmltools_would_get_it_wrong(name: str, exports: Exports) -> None:
    refused = refusal(exports, name)
    assert REFUSED[name] in refused.message
    assert refused.code == "unsupported" and refused.field == "exporter"


@pytest.mark.parametrize("case", WRONG)
def test_export_says_why_when_mlmodel_is_wrong(case: str, exports: Exports) -> None:
    refused = refusal(exports, case)
    assert WRONG[case][2] in refused.message and refused.field == "file"


@pytest.mark.parametrize("case", UNFIT)
def test_export_says_why_when_rows_do_not_fit(case: str, exports: Exports) -> None:
    refused = refusal(exports, case)
    assert UNFIT[case][2] in refused.message and refused.field == "rows"


@pytest.mark.parametrize("name", ["xgboost-pipeline-pkl", "lightgbm-pipeline-skops"])
def test_export_names_the_package_when_a_pipeline_ends_in_boosted_trees(name: str, task: Task, boosted: Path) -> None:
    with pytest.raises(EngineError) as caught:
        task(EXPORT, {"exporter": "onnx"}, source=boosted / name / "source")
    library = name.split("-")[0]
    assert caught.value.message == f"The model needs the package {library}, which is not installed here."


def test_scan_is_clean_when_models_are_boosted_trees(boosted: Path) -> None:
    for folder in boosted.glob("*/source"):
        found = scan(folder)
        assert found["verdict"] == "clean", (folder.parent.name, found["findings"])
        if "pipeline" not in folder.parent.name:
            assert found["framework"] == folder.parent.name.split("-")[0] and found["flavor_version"]


def test_environment_is_named_when_a_framework_is_boosting() -> None:
    for framework in ("xgboost", "lightgbm"):
        assert source_of(framework).environment == base.exporter("onnx").environment(framework) == "boosting"
        assert base.exporter("onnx").why_not(framework) is None and base.exporter("pmml").why_not(framework)


def test_lock_has_neither_host_nor_cuda_when_read() -> None:
    text = LOCK.read_text()
    assert "://" not in text and "--index" not in text
    assert "nvidia" not in text and "xgboost-cpu==" in text and "scikit-learn==1.9.0" in text
