"""Every export is proven against the source, and a wrong one is caught."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import numpy_helper

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export import base, environments, tasks
from engine.export.base import Source
from engine.export.onnx_exporter import OnnxExporter
from tests.engine.conftest import ROOT, Task, mixed_frame

EXPORT = "engine.export.tasks:export"


def test_onnx_matches_when_the_source_is_a_network(task: Task, digits_model: Path, digits_rows: Path) -> None:
    result = task(EXPORT, {"exporter": "onnx"}, source=digits_model, rows=digits_rows)
    value = result.value
    assert value["parity"]["passed"] and value["parity"]["max_abs"] < 1e-5
    assert value["parity"]["agreement"] == 1.0 and value["parity"]["rows"] == 1797
    assert value["labels"] == list(range(10)) and value["rows_from"] == "rows"
    assert value["signature"]["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 64]}]
    assert value["environment"] is None and value["opset"] >= 15
    assert onnx.load(result.files / "model.onnx").graph.output[1].type.HasField("tensor_type")


def test_onnx_keeps_text_labels_when_the_source_is_a_pickle(task: Task, iris_model: Path) -> None:
    value = task(EXPORT, {"exporter": "onnx"}, source=iris_model).value
    assert value["labels"] == ["setosa", "versicolor", "virginica"]
    assert value["rows_from"] == "example" and value["parity"]["passed"]


def test_onnx_matches_when_the_source_is_a_regression(task: Task, diabetes_model: Path) -> None:
    value = task(EXPORT, {"exporter": "onnx"}, source=diabetes_model).value
    assert value["labels"] is None and value["parity"]["agreement"] is None
    assert value["parity"]["max_rel"] < 1e-5


def test_onnx_has_an_input_a_column_when_the_table_is_mixed(task: Task, mixed_model: Path, tmp_path: Path) -> None:
    mixed_frame().to_csv(tmp_path / "rows.csv", index=False)
    value = task(EXPORT, {"exporter": "onnx"}, source=mixed_model, rows=tmp_path / "rows.csv").value
    assert {each["name"]: each["datatype"] for each in value["signature"]["inputs"]} == {
        "size": "FP32",
        "colour": "BYTES",
        "age": "FP32",
    }
    assert value["parity"]["rows"] == 200 and value["parity"]["passed"]


def test_onnx_needs_no_locale_when_the_source_is_text(task: Task, text_model: Path) -> None:
    value = task(EXPORT, {"exporter": "onnx"}, source=text_model).value
    assert value["parity"]["passed"] and value["signature"]["inputs"][0]["datatype"] == "BYTES"


def test_onnx_stays_as_it_is_when_the_source_is_onnx(task: Task, tmp_path: Path, digits_onnx: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    shutil.copy(digits_onnx, folder)
    result = task(EXPORT, {"exporter": "onnx"}, source=folder)
    assert (result.files / "model.onnx").read_bytes() == digits_onnx.read_bytes()
    assert result.value["rows_from"] == "synthesized" and result.value["parity"]["max_abs"] == 0


def test_rows_are_invented_and_said_when_there_are_none(task: Task, tmp_path: Path, digits_model: Path) -> None:
    folder = shutil.copytree(digits_model, tmp_path / "bare")
    (folder / "input_example.json").unlink()
    value = task(EXPORT, {"exporter": "onnx"}, source=folder).value
    assert value["rows_from"] == "synthesized" and value["parity"]["rows"] == 256


def test_opset_is_kept_when_it_is_given(task: Task, iris_model: Path) -> None:
    assert task(EXPORT, {"exporter": "onnx", "options": {"opset": 15}}, source=iris_model).value["opset"] == 15


class WrongExporter(OnnxExporter):
    """Converts, then bends one weight: the kind of fault that looks fine until somebody compares."""

    name = "wrong"
    factor = 1.5

    def export(self, source: Source, rows: Rows, out: Path, options: Any) -> dict[str, Any]:
        result = super().export(source, rows, out, options)
        model = onnx.load(out / self.file_name)
        floats = [each for each in model.graph.initializer if each.data_type == 1 and np.prod(each.dims) > 100]
        bent = numpy_helper.to_array(floats[-1]).copy()
        bent[..., 0] *= self.factor
        floats[-1].CopyFrom(numpy_helper.from_array(bent, floats[-1].name))
        onnx.save(model, out / self.file_name)
        return result


class ForgetfulExporter(OnnxExporter):
    """Scores lie in tolerance, labels come in another order."""

    name = "forgetful"

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        outputs = super().score(artifact, rows, labels)
        return Outputs((outputs.labels + 1) % 10, outputs.scores)


@pytest.mark.parametrize("plugin", [WrongExporter(), ForgetfulExporter()])
def test_export_fails_when_the_converter_is_wrong(
    plugin: OnnxExporter, digits_model: Path, digits_rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineError) as caught:
        tasks.convert(plugin, plugin.Options(), {}, {"source": digits_model, "rows": digits_rows}, tmp_path)
    assert caught.value.code == "parity"
    assert "predicts something else" in caught.value.message and "1797 rows" in caught.value.message
    assert "the first difference is after step 'mlpclassifier'" in caught.value.message


def test_pmml_matches_when_java_comes_from_the_wheel(
    task: Task, digits_model: Path, digits_rows: Path, java_python: Path
) -> None:
    result = task(EXPORT, {"exporter": "pmml"}, source=digits_model, rows=digits_rows, python=java_python)
    value = result.value
    assert value["parity"]["passed"] and value["parity"]["max_abs"] < 1e-6
    assert value["parity"]["agreement"] == 1.0 and value["environment"] == "pmml"
    assert "<PMML" in (result.files / "model.pmml").read_text()[:500]
    assert [each["name"] for each in value["signature"]["outputs"]][:2] == ["target", "probability(0)"]


@pytest.mark.parametrize("name", ["iris_model", "diabetes_model", "mixed_model"])
def test_pmml_matches_when_the_model_is_of_another_kind(
    name: str, task: Task, request: pytest.FixtureRequest, java_python: Path
) -> None:
    value = task(EXPORT, {"exporter": "pmml"}, source=request.getfixturevalue(name), python=java_python).value
    assert value["parity"]["passed"] and value["format"] == "pmml"


def test_environment_is_reused_when_it_is_there(java_python: Path) -> None:
    lock, root = ROOT / "locks" / "pmml.txt", java_python.parents[2]
    lines: list[str] = []
    assert environments.is_prepared(lock, root)
    assert environments.prepare(lock, root, lines.append) == java_python
    assert lines == ["using the environment prepared for pmml"]


@pytest.mark.parametrize(
    "text", ["numpy==2.4.6\n", "numpy==2.4.6 --hash=sha256:" + "0" * 64 + "\n"], ids=["no hash", "wrong hash"]
)
def test_environment_is_refused_when_the_lock_does_not_hold(text: str, tmp_path: Path) -> None:
    lock = tmp_path / "bad.txt"
    lock.write_text(text)
    with pytest.raises(EngineError) as caught:
        environments.prepare(lock, tmp_path / "root")
    assert caught.value.code == "environment"
    assert [path.name for path in (tmp_path / "root").iterdir() if path.is_dir()] == []


def test_environment_is_refused_when_its_proof_fails(tmp_path: Path) -> None:
    lock = tmp_path / "empty.txt"
    lock.write_text("")
    with pytest.raises(EngineError, match="Could not use"):
        environments.prepare(lock, tmp_path / "root", prove=("numpy",))
    assert not environments.is_prepared(lock, tmp_path / "root")


def test_lock_records_no_host_when_read() -> None:
    text = (ROOT / "locks" / "pmml.txt").read_text()
    assert "://" not in text and "--index" not in text and "sklearn2pmml==0.133.1" in text


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"exporter": "nothing"}, "exporter"),
        ({"exporter": "onnx", "options": {"opset": 5}}, "options.opset"),
        ({"exporter": "onnx", "options": {"other": 5}}, "options.other"),
        ({"exporter": "onnx", "tolerance": "x"}, "tolerance"),
        ({"exporter": "onnx", "framework": "paddle"}, "exporter"),
    ],
)
def test_error_names_the_field_when_parameters_are_wrong(
    params: dict[str, Any], field: str, iris_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineError) as caught:
        tasks.export(params=params, inputs={"source": iris_model}, out=tmp_path)
    assert caught.value.field == field


def test_error_says_so_when_rows_lack_a_column(mixed_model: Path, tmp_path: Path) -> None:
    pd.DataFrame({"size": [1.0], "colour": ["red"]}).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(EngineError) as caught:
        tasks.export(
            params={"exporter": "onnx"}, inputs={"source": mixed_model, "rows": tmp_path / "rows.csv"}, out=tmp_path
        )
    assert "age" in caught.value.message and caught.value.field == "rows"


def test_exporters_are_listed_when_nothing_heavy_is_imported() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from engine.export.base import exporters; from engine.optimize.base import optimizers; "
        "print(*exporters(), *optimizers()); "
        "heavy = {'onnx', 'onnxruntime', 'sklearn', 'numpy', 'pandas', 'torch', 'django'} & sys.modules.keys(); "
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"onnx", "pmml", "dynamic-quantization"} <= set(done.stdout.split())
    assert base.exporter("pmml").why_not("torch")
