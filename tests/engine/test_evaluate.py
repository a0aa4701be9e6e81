"""Rows, parity, quality and measurements; scikit-learn is the oracle of the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from engine.errors import EngineError
from engine.evaluate import outputs, quality
from engine.evaluate.outputs import Outputs, run_all
from engine.evaluate.parity import compare
from engine.evaluate.rows import load, save
from engine.formats.signature import of_onnx
from engine.scan.onnx_run import session
from tests.engine.conftest import Task

MEASURE = "engine.evaluate.tasks:measure"
JUDGE = "engine.evaluate.tasks:judge"


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_rows_are_the_same_when_stored_in_any_format(suffix: str, tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32), np.arange(20)
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(target=y)
    path = tmp_path / f"rows.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        np.savez(path, X=x, y=y)
    rows = load(path)
    assert len(rows) == 20 and rows.matrix.dtype == np.float32
    np.testing.assert_allclose(rows.matrix, x, rtol=1e-6)
    np.testing.assert_array_equal(rows.y, y)


def test_rows_keep_words_when_a_column_is_text(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("size,colour,label\n1,red,yes\n,blue,no\n3,,yes\n")
    rows = load(tmp_path / "r.csv", "label")
    assert rows.columns == ["size", "colour"] and rows.matrix is None
    assert list(rows.column("colour")) == ["red", "blue", ""]
    assert np.isnan(rows.column("size")[1]) and list(rows.y) == ["yes", "no", "yes"]


def _objects(path: Path) -> None:
    np.savez(path, X=np.array([[{}]], dtype=object))


BAD_ROWS: dict[str, Any] = {
    "empty": lambda p: p.write_bytes(b""),
    "header only": lambda p: p.write_text("a,target\n"),
    "target only": lambda p: p.write_text("target\n1\n"),
    "ragged": lambda p: p.write_text("a,b\n1,2\n1,2,3,4\n"),
    "binary": lambda p: p.write_bytes(bytes(100)),
    "cut parquet": lambda p: p.write_bytes(b"PAR1" + bytes(50)),
    "cut npz": lambda p: p.write_bytes(b"PK\x03\x04" + bytes(50)),
    "missing target": lambda p: p.write_text("a,target\n1,2\n2,\n"),
    "not utf-8": lambda p: p.write_bytes(b"a,b\n\xff\xfe,1\n"),
    "too many rows": lambda p: p.write_text("a\n" + "1\n" * 200_001),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_error_names_rows_when_the_file_is_bad(name: str, tmp_path: Path) -> None:
    BAD_ROWS[name](tmp_path / "rows")
    with pytest.raises(EngineError) as caught:
        load(tmp_path / "rows")
    assert caught.value.field == "rows" and str(tmp_path) not in caught.value.message


def test_pickled_arrays_are_refused_when_npz_holds_them(tmp_path: Path) -> None:
    _objects(tmp_path / "rows.npz")
    with pytest.raises(EngineError, match="objects"):
        load(tmp_path / "rows.npz")


SCORES = np.array([[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])


def test_parity_passes_when_differences_are_small() -> None:
    found = compare(Outputs(np.array([1, 0, 0]), SCORES), Outputs(np.array(["1", "0", "0"]), SCORES + 1e-6))
    assert found["passed"] and found["agreement"] == 1.0
    assert found["max_abs"] == pytest.approx(1e-6) and found["rows"] == 3
    assert found["max_rel"] == pytest.approx(1e-6 / 0.2)


def test_parity_accepts_another_label_when_the_row_is_a_tie() -> None:
    found = compare(Outputs(np.array([1, 0, 0]), SCORES), Outputs(np.array([1, 0, 1]), SCORES))
    assert found["passed"] and found["agreement"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "other",
    [
        Outputs(np.array([1, 0, 0]), SCORES + 0.01),
        Outputs(np.array([0, 0, 0]), SCORES),
        Outputs(np.array([1, 0, 0]), SCORES * np.nan),
        Outputs(np.array([1, 0, 0]), SCORES * np.inf),
    ],
    ids=["scores", "labels", "nan", "infinity"],
)
def test_parity_fails_and_shows_the_worst_rows_when_something_differs(other: Outputs) -> None:
    found = compare(Outputs(np.array([1, 0, 0]), SCORES), other)
    assert not found["passed"] and found["worst"][0]["difference"] > 0.009


@pytest.mark.parametrize(
    "other", [Outputs(None, SCORES[:, :1]), Outputs(None, SCORES[:2]), Outputs(np.array([1, 0, 0]), None)]
)
def test_parity_is_an_error_when_outputs_cannot_be_compared(other: Outputs) -> None:
    with pytest.raises(EngineError):
        compare(Outputs(None, SCORES), other)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=50))
def test_classification_equals_scikit_learn_when_labels_are_any(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = (np.array(side) for side in zip(*pairs, strict=True))
    found = quality.metrics("tabular-classification", Outputs(predicted, None), truth)
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(truth, predicted))
    assert found["macro_f1"] == pytest.approx(oracle.f1_score(truth, predicted, average="macro", zero_division=0))


def test_regression_equals_scikit_learn_when_values_are_random() -> None:
    random = np.random.default_rng(2)
    truth = random.normal(size=200)
    predicted = truth + random.normal(size=200)
    found = quality.metrics("tabular-regression", Outputs(None, predicted.reshape(-1, 1)), truth)
    assert found["rmse"] == pytest.approx(oracle.root_mean_squared_error(truth, predicted))
    assert found["mae"] == pytest.approx(oracle.mean_absolute_error(truth, predicted))
    assert found["r2"] == pytest.approx(oracle.r2_score(truth, predicted))


def test_labels_come_from_scores_when_the_model_gives_no_labels() -> None:
    truth = np.array(["no", "yes", "no"], dtype=object)
    found = quality.metrics("text-classification", Outputs(None, SCORES[:, ::-1]), truth)
    assert found["accuracy"] == 1.0
    assert quality.metrics("embedding", Outputs(None, SCORES), None) == {}


def test_measurement_is_complete_when_there_is_a_reference(task: Task, digits_onnx: Path, digits_rows: Path) -> None:
    params = {"rounds": 3, "threads": 1, "batch": 4}
    found = task(MEASURE, params, model=digits_onnx, reference=digits_onnx, rows=digits_rows).value
    assert found["metrics"]["accuracy"] > 0.95 and found["metrics"] == found["reference"]["metrics"]
    latency = found["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert 0.5 < found["ratio_low"] <= found["ratio_to_reference"] <= found["ratio_high"] < 2
    assert 20 < found["reference"]["peak_memory_mb"] < 1000
    assert found["throughput"] > 100 and found["size_bytes"] == digits_onnx.stat().st_size
    assert 20 < found["peak_memory_mb"] < 1000 and found["batch"] == 4 and found["rows"] == 1797
    assert found["profile"]["threads"] == 1 and found["profile"]["cores"] >= 1


def test_scores_are_the_same_when_a_classifier_has_its_zipmap(
    digits_files: dict[bool, Path], digits_rows: Path
) -> None:
    plain, mapped = (
        run_all(session(data), of_onnx(onnx.load_from_string(data)), load(digits_rows, "target"))
        for data in (digits_files[zipmap].read_bytes() for zipmap in (False, True))
    )
    assert plain.scores.shape == (1797, 10) and np.array_equal(plain.scores, mapped.scores)
    assert np.array_equal(plain.labels, mapped.labels)


def test_variant_is_judged_beside_its_parent(task: Task, digits_onnx: Path, digits_rows: Path, tmp_path: Path) -> None:
    from onnx import numpy_helper

    broken = onnx.load(digits_onnx)
    weights = next(each for each in broken.graph.initializer if len(each.dims) == 2)
    params = {"task": "tabular-classification"}
    for change, fails in ((1.01, False), (np.nan, True)):
        values = numpy_helper.to_array(weights) * np.float32(change)
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))
        onnx.save(broken, tmp_path / "variant.onnx")
        files = {"model": tmp_path / "variant.onnx", "reference": digits_onnx, "rows": digits_rows}
        if fails:
            with pytest.raises(EngineError, match="not finite"):
                task("engine.evaluate.tasks:judge", params, **files)
            continue
        found = task("engine.evaluate.tasks:judge", params, **files).value
        assert found["metric"] == "accuracy" and abs(found["loss"]) < 1 and found["rows"] == 1797
        assert found["loss"] < found["loss_upper"] and len(found["slices"]) == 10


def test_judgement_is_the_same_when_the_parents_answers_were_kept(
    task: Task, digits_onnx: Path, digits_rows: Path, tmp_path: Path
) -> None:
    params = {"task": "tabular-classification"}
    files = {"model": digits_onnx, "reference": digits_onnx, "rows": digits_rows}
    first = task(JUDGE, {**params, "keep": True}, **files)
    assert first.value["kept"] and first.value["metrics"]["model"] == first.value["metrics"]["reference"]
    kept = first.files / "answers.npz"
    kept = kept.rename(tmp_path / "answers.npz")
    # The parent itself is not run again: this one could not be.
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    again = task(JUDGE, params, **{**files, "reference": tmp_path / "broken.onnx", "answers": kept})
    assert again.value == {**first.value, "kept": False} and not (again.files / "answers.npz").exists()
    save(load(digits_rows).head(50), "target", tmp_path / "fewer.parquet")
    with pytest.raises(EngineError, match="not those of 50 rows"):
        task(JUDGE, params, **{**files, "rows": tmp_path / "fewer.parquet", "answers": kept})


def test_rows_are_not_answered_again_when_quality_is_judged_already(
    task: Task, digits_onnx: Path, digits_rows: Path
) -> None:
    params = {"task": "tabular-classification", "rounds": 1}
    files = {"model": digits_onnx, "reference": digits_onnx, "rows": digits_rows}
    found = task(MEASURE, {**params, "quality": False}, **files).value
    assert found["metrics"] == {} and found["ratio_to_reference"] > 0 and found["rows"] == 1797 and "kept" not in found
    kept = task(MEASURE, {**params, "keep": True}, model=digits_onnx, rows=digits_rows)
    assert kept.value["kept"] and kept.value["metrics"]["accuracy"] > 0.9
    assert len(outputs.read(kept.files / "answers.npz", 1797)) == 1797


def test_answers_are_the_same_when_they_were_kept(tmp_path: Path) -> None:
    file = tmp_path / "answers.npz"
    words = Outputs(np.array(["a", "bc"], dtype=object), np.array([[0.1, np.nan], [1e-300, 2.0]]))
    assert outputs.save(words, file)
    back = outputs.read(file, 2)
    assert back.labels is not None and back.labels.tolist() == ["a", "bc"]
    assert np.array_equal(back.scores, words.scores, equal_nan=True)
    # What came from 32 bits takes no more; what is too much is not kept.
    assert outputs.save(Outputs(None, np.ones((1000, 100), np.float32).astype(float)), file)
    assert file.stat().st_size < 450_000 and outputs.read(file, 1000).scores.dtype == np.float64
    assert not outputs.save(Outputs(None, np.broadcast_to(1.0, (2**17, 1024))), tmp_path / "much.npz")
    assert not (tmp_path / "much.npz").exists()


@pytest.mark.parametrize(("params", "field"), [({"threads": 0}, "threads"), ({"rounds": "x"}, "rounds")])
def test_measurement_names_the_field_when_parameters_are_wrong(
    params: dict[str, Any], field: str, task: Task, digits_onnx: Path, digits_rows: Path
) -> None:
    with pytest.raises(EngineError) as caught:
        task(MEASURE, params, model=digits_onnx, rows=digits_rows)
    assert caught.value.field == field


def test_measurement_needs_a_target_when_the_task_is_classification(
    task: Task, digits_onnx: Path, tmp_path: Path
) -> None:
    pd.DataFrame(np.zeros((5, 64))).to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(EngineError, match="no target column"):
        task(MEASURE, {}, model=digits_onnx, rows=tmp_path / "r.csv")
    found = task(MEASURE, {"task": "embedding", "rounds": 1}, model=digits_onnx, rows=tmp_path / "r.csv").value
    assert found["metrics"] == {}


def test_measurement_says_so_when_columns_do_not_fit(task: Task, digits_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("a,target\n1,2\n")
    with pytest.raises(EngineError, match="1 columns do not fit"):
        task(MEASURE, {}, model=digits_onnx, rows=tmp_path / "r.csv")


def test_speed_is_measured_on_invented_rows_when_there_are_none(tmp_path: Path) -> None:
    from engine.evaluate.tasks import measure
    from tests.e2e.small import classifier

    model = tmp_path / "model.onnx"
    model.write_bytes(classifier(seed=1))
    params = {"task": "tabular-classification", "rounds": 1}
    measured = measure(params=params, inputs={"model": model, "reference": model}, out=tmp_path)
    assert measured["metrics"] == {} and measured["reference"]["metrics"] == {}
    assert measured["latency_ms"]["p50"] > 0 and measured["ratio_to_reference"] > 0
