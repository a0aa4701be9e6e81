"""Variants that are really smaller and still right; baselines that add up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.drift.baseline import MAX_FEATURES, baseline
from engine.errors import EngineError
from engine.evaluate.rows import Rows, load
from tests.engine.conftest import Task
from tests.engine.onnx_files import relu

OPTIMIZE = "engine.optimize.tasks:make"


def test_dynamic_int8_is_small_and_right_when_the_model_is_a_network(
    task: Task, digits_onnx: Path, digits_rows: Path, tmp_path: Path
) -> None:
    result = task(OPTIMIZE, {"steps": [{"optimizer": "dynamic-quantization"}]}, model=digits_onnx)
    value = result.value
    assert value["size_bytes"] < 0.5 * value["source_bytes"] == 0.5 * digits_onnx.stat().st_size
    step = value["steps"][0]
    assert step["optimizer"] == "dynamic-quantization" and step["options"]["per_channel"] is False
    assert "quantized" in value["notes"][-1]
    small = tmp_path / "small.onnx"
    small.write_bytes((result.files / value["file"]).read_bytes())
    kinds = {node.op_type for node in onnx.load(small).graph.node}
    assert kinds & {"MatMulInteger", "DynamicQuantizeMatMul"}
    found = task("engine.evaluate.tasks:measure", {"rounds": 1}, model=small, reference=digits_onnx, rows=digits_rows)
    metrics = found.value["metrics"]["accuracy"], found.value["reference"]["metrics"]["accuracy"]
    assert abs(metrics[0] - metrics[1]) < 0.01


def test_no_gain_is_said_when_there_is_nothing_to_quantize(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "relu.onnx"
    path.write_bytes(relu().SerializeToString())
    with pytest.raises(EngineError) as caught:
        task(OPTIMIZE, {"steps": [{"optimizer": "dynamic-quantization"}]}, model=path)
    assert caught.value.code == "no-gain"


def test_error_names_the_field_when_the_optimizer_is_unknown(task: Task, digits_onnx: Path) -> None:
    with pytest.raises(EngineError) as caught:
        task(OPTIMIZE, {"steps": [{"optimizer": "magic"}]}, model=digits_onnx)
    assert caught.value.field == "optimizer"


def test_baseline_adds_up_when_rows_are_digits(task: Task, digits_rows: Path) -> None:
    found = task("engine.drift.tasks:baseline", {}, rows=digits_rows).value
    assert found["rows"] == 1797 and len(found["features"]) == 64 and sum(found["target"].values()) == 1797
    matrix = load(digits_rows).matrix
    for index, feature in enumerate(found["features"].values()):
        assert sum(feature["counts"]) == 1797 and len(feature["edges"]) == len(feature["counts"]) + 1
        assert feature["mean"] == pytest.approx(matrix[:, index].mean(), rel=1e-4, abs=1e-6)
        assert feature["std"] == pytest.approx(matrix[:, index].std(), rel=1e-4, abs=1e-6)


def test_baseline_counts_missing_and_words_when_columns_have_them() -> None:
    table = {
        "n": np.array([1, np.nan, np.inf, 2], dtype=np.float32),
        "void": np.full(4, np.nan, dtype=np.float32),
        "w": np.array(["a", "", "a", "b"], dtype=object),
    }
    found = baseline(Rows(list(table), None, table, np.array([0.5, 1, 2, 3])))
    assert found["features"]["n"]["missing"] == 2 and found["features"]["void"]["edges"] == []
    assert found["features"]["w"] == {"kind": "category", "counts": {"a": 2, "b": 1}, "other": 0, "missing": 1}
    assert found["target"] == {}


def test_baseline_is_capped_when_there_are_many_features() -> None:
    names = [f"x{i}" for i in range(MAX_FEATURES + 7)]
    found = baseline(Rows(names, np.zeros((3, len(names)), np.float32), None, None))
    assert len(found["features"]) == MAX_FEATURES and found["features_left_out"] == 7
