"""PMML as a source: what becomes of it in ONNX predicts what Java says, and nothing else is let through."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from engine.errors import EngineError
from engine.evaluate.rows import Rows
from engine.export.to_onnx.pmml import convert
from engine.scan import pmml, xml_text
from tests.engine import pmml_models
from tests.engine.conftest import Task
from tests.engine.many_exports import Exports, exported

EXPORT = "engine.export.tasks:export"
NAMES = [name for name in pmml_models.models() if name != "bayes"]
HOLES = ["tree-regression", "boosting-regression", "linear", "histogram-boosting"]
NO_ROWS = Rows([], None, {}, None)


@pytest.fixture(scope="session")
def documents(java_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model.pmml for each name, written by sklearn2pmml, and its rows beside it."""
    folder = tmp_path_factory.mktemp("pmml")
    command = [str(java_python), str(Path(pmml_models.__file__)), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def exports(documents: Path, java_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Every document with its rows, and some with holes in them (`<name>-holes`): one Java for all."""
    ask = {"exporter": "onnx", "framework": "pmml", "tolerance": 1e-5}
    cases = {name: {**ask, "source": name, "rows": f"{name}.csv"} for name in NAMES}
    for name in HOLES:
        frame = pd.read_csv(documents / f"{name}.csv")
        rows = f"{name}-holes.csv"
        frame.mask(np.random.default_rng(0).random(frame.shape) < 0.1).to_csv(documents / rows, index=False)
        cases[f"{name}-holes"] = {**ask, "source": name, "rows": rows}
    return exported(cases, documents, java_python, tmp_path_factory.mktemp("exports"))


@pytest.mark.parametrize("name", NAMES)
def test_onnx_says_what_java_says_when_the_source_is_pmml(name: str, exports: Exports, documents: Path) -> None:
    rows = documents / f"{name}.csv"
    value, _ = exports[name]
    assert value["parity"]["passed"] and value["parity"]["agreement"] in (None, 1.0)
    assert value["parity"]["rows"] == len(pd.read_csv(rows)) and value["environment"] == "pmml"
    given = {each["name"]: each for each in value["signature"]["inputs"]}
    assert set(given) <= set(pd.read_csv(rows).columns) and all(each["shape"] == [-1, 1] for each in given.values())
    kinds = [(each["name"], each["datatype"]) for each in value["signature"]["outputs"]]
    if value["labels"] is None:
        assert kinds == [("prediction", "FP64")]
    else:
        assert kinds[1] == ("probabilities", "FP64")
        assert kinds[0] == ("label", "BYTES" if value["labels"] == ["setosa", "versicolor", "virginica"] else "INT64")


@pytest.mark.parametrize("name", HOLES)
def test_onnx_says_what_java_says_when_values_are_missing(name: str, exports: Exports) -> None:
    assert exports[f"{name}-holes"][0]["parity"]["passed"]


def test_rows_are_invented_of_the_listed_values_when_pmml_has_none(
    task: Task, documents: Path, java_python: Path
) -> None:
    value = task(EXPORT, {"exporter": "onnx"}, source=documents / "mixed-forest", python=java_python).value
    assert value["rows_from"] == "synthesized" and value["parity"]["passed"]


def test_export_names_the_element_when_there_is_no_way(documents: Path) -> None:
    with pytest.raises(EngineError, match="no way to ONNX for NaiveBayesModel") as caught:
        convert(documents / "bayes" / "model.pmml", NO_ROWS, None)
    assert caught.value.code == "unsupported"


# Documents written by hand


def document(model: str, fields: str = "") -> str:
    return (
        '<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/><DataDictionary>'
        '<DataField name="y" optype="continuous" dataType="double"/>'
        '<DataField name="a" optype="continuous" dataType="double"/>'
        f'<DataField name="b" optype="continuous" dataType="double"/>{fields}</DataDictionary>{model}</PMML>'
    )


SCHEMA = '<MiningSchema><MiningField name="y" usageType="target"/><MiningField name="a"/><MiningField name="b"/></MiningSchema>'  # noqa: E501
LINEAR = (
    f'<RegressionModel functionName="regression">{SCHEMA}<RegressionTable intercept="1">'
    '<NumericPredictor name="a" coefficient="2" exponent="2"/></RegressionTable></RegressionModel>'
)


def tree(attributes: str, nodes: str) -> str:
    return document(
        f'<TreeModel functionName="regression" {attributes}>{SCHEMA}<Node score="9"><True/>{nodes}</Node></TreeModel>'
    )


def asks(operator: str, value: str, field: str = "a") -> str:
    return f'<SimplePredicate field="{field}" operator="{operator}" value="{value}"/>'


def answers(text: str, tmp_path: Path, a: list[float], b: list[float] | None = None) -> list[float]:
    path = tmp_path / "model.pmml"
    path.write_text(text)
    session = onnxruntime.InferenceSession(convert(path, NO_ROWS, None))
    columns = {"a": a, "b": b or [0.0] * len(a)}
    names = {each.name for each in session.get_inputs()}
    given = {name: np.array(values).reshape(-1, 1) for name, values in columns.items() if name in names}
    return [float(value) for value in session.run(None, given)[0].reshape(-1)]


def test_numbers_are_those_of_the_table_when_a_regression_has_powers(tmp_path: Path) -> None:
    assert answers(document(LINEAR), tmp_path, [0.0, 3.0]) == [1.0, 19.0]


@pytest.mark.parametrize(
    ("strategy", "operator", "expected"),
    [
        # a = 1 (true), 5 (false), missing; without a true child the last node's score 9 is returned
        ("none", "lessOrEqual", [1.0, 9.0, 9.0]),
        ("none", "notEqual", [9.0, 1.0, 9.0]),
        ("lastPrediction", "lessOrEqual", [1.0, 9.0, 9.0]),
        ("lastPrediction", "notEqual", [9.0, 1.0, 9.0]),
        ("nullPrediction", "lessOrEqual", [1.0, 9.0, np.nan]),
        ("nullPrediction", "notEqual", [9.0, 1.0, np.nan]),
        ("nullPrediction", "greaterThan", [9.0, 1.0, np.nan]),
    ],
)
def test_tree_follows_the_strategy_when_a_value_is_missing(
    strategy: str, operator: str, expected: list[float], tmp_path: Path
) -> None:
    text = tree(
        f'missingValueStrategy="{strategy}" noTrueChildStrategy="returnLastPrediction"',
        f'<Node score="1">{asks(operator, "1")}</Node>',
    )
    assert np.array_equal(answers(text, tmp_path, [1.0, 5.0, np.nan]), expected, equal_nan=True)


@pytest.mark.parametrize(("child", "expected"), [("l", [1.0, 2.0, 1.0]), ("r", [1.0, 2.0, 2.0])])
def test_tree_goes_to_the_default_child_when_a_value_is_missing(
    child: str, expected: list[float], tmp_path: Path
) -> None:
    halves = f'<Node id="l" score="1">{asks("lessThan", "3")}</Node><Node id="r" score="2">{asks("greaterOrEqual", "3")}</Node>'  # noqa: E501
    text = tree('missingValueStrategy="defaultChild"', halves).replace(
        '<Node score="9">', f'<Node score="9" defaultChild="{child}">'
    )
    assert answers(text, tmp_path, [2.0, 3.0, np.nan]) == expected


def test_fields_are_rounded_when_they_are_floats(tmp_path: Path) -> None:
    derived = (
        '<LocalTransformations><DerivedField name="f" optype="continuous" dataType="float"><FieldRef field="a"/>'
        "</DerivedField></LocalTransformations>"
    )
    split = f'<Node score="1">{asks("lessOrEqual", "0.1", "f")}</Node>'
    text = tree('noTrueChildStrategy="returnLastPrediction"', split).replace(
        "</MiningSchema>", f"</MiningSchema>{derived}"
    )
    # 0.1 as a float is more than 0.1, and so is the threshold; the next float is beyond both.
    assert answers(text, tmp_path, [0.1, float(np.float32(0.1)), 0.10000001]) == [1.0, 1.0, 9.0]


def test_norm_continuous_is_a_line_when_it_has_two_knots(tmp_path: Path) -> None:
    derived = (
        '<TransformationDictionary><DerivedField name="n" optype="continuous" dataType="double">'
        '<NormContinuous field="a"><LinearNorm orig="0" norm="1"/><LinearNorm orig="2" norm="5"/></NormContinuous>'
        "</DerivedField></TransformationDictionary>"
    )
    text = document(LINEAR.replace('name="a" coefficient', 'name="n" coefficient'))
    text = text.replace("</DataDictionary>", f"</DataDictionary>{derived}")
    assert answers(text, tmp_path, [0.0, 1.0, 3.0]) == [3.0, 19.0, 99.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((' exponent="2"', ' exponent="0.5"'), "exponent 0.5"),
        (('functionName="regression"', 'functionName="clustering"'), "functionName clustering"),
        (('<MiningField name="a"/>', '<MiningField name="a" outliers="asExtremeValues"/>'), "outliers"),
        (('<MiningField name="a"/>', '<MiningField name="a" invalidValueTreatment="asMissing"/>'), "asMissing"),
        (('name="a" optype="continuous" dataType="double"', 'name="a" optype="x" dataType="dateTime"'), "dateTime"),
        (("<RegressionTable ", '<Targets><Target castInteger="round"/></Targets><RegressionTable '), "Target"),
        (("NumericPredictor", "Mystery"), "Mystery"),
    ],
)
def test_conversion_is_refused_by_name_when_it_would_not_be_exact(
    change: tuple[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=re.escape(words)) as caught:
        answers(document(LINEAR).replace(*change), tmp_path, [1.0])
    assert caught.value.code == "unsupported" and caught.value.field == "exporter"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('name="a" coefficient', 'name="zzz" coefficient'), "'zzz', which it does not define"),
        (('coefficient="2"', 'coefficient="two"'), "NumericPredictor has 'two'"),
        (('<MiningField name="a"/>', '<MiningField name="a"/><MiningField name="a"/>'), "each once"),
    ],
)
def test_conversion_is_refused_when_the_document_is_wrong(change: tuple[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=re.escape(words)):
        answers(document(LINEAR).replace(*change), tmp_path, [1.0])


def test_conversion_is_refused_when_fields_double_for_ever(tmp_path: Path) -> None:
    steps = "".join(
        f'<DerivedField name="d{i}" optype="continuous" dataType="double"><Apply function="+">'
        f'<FieldRef field="{before}"/><FieldRef field="{before}"/></Apply></DerivedField>'
        for i, before in enumerate(["a", *(f"d{i}" for i in range(60))])
    )
    text = document(LINEAR.replace('name="a" coefficient', 'name="d60" coefficient'))
    text = text.replace("</MiningSchema>", f"</MiningSchema><LocalTransformations>{steps}</LocalTransformations>")
    with pytest.raises(EngineError, match="more than 500 steps"):
        answers(text, tmp_path, [1.0])


# Safety of the reader

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
HOSTILE: dict[str, tuple[bytes, str]] = {
    "entities": ((BOMB + document(LINEAR)).encode(), "document type"),
    "outside": (b'<!DOCTYPE PMML SYSTEM "file:///etc/passwd">' + document(LINEAR).encode(), "document type"),
    "utf-16 entities": (f'<?xml version="1.0" encoding="UTF-16"?>{BOMB}<PMML/>'.encode("utf-16"), "document type"),
    "deep": (b"<a>" * 100_000, "nested too deep"),
    "broken": (document(LINEAR).encode()[:-20], "not well-formed XML"),
    "encoding": (b'<?xml version="1.0" encoding="zzz"?><PMML/>', "not"),
    "other": (b'<html xmlns="http://www.w3.org/1999/xhtml"/>', "not a PMML 4 document"),
    "two models": (document(LINEAR + LINEAR).encode(), "2 models instead of one"),
    "unknown field": (document(LINEAR.replace('"a"/>', '"q"/>')).encode(), "DataDictionary"),
    "zip": (b"PK\x03\x04" + bytes(100), "not well-formed XML"),
    "empty": (b"", "not well-formed XML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_pmml_is_refused_in_one_sentence_when_it_is_hostile(name: str, tmp_path: Path) -> None:
    content, words = HOSTILE[name]
    path = tmp_path / "model.pmml"
    path.write_bytes(content)
    with pytest.raises(EngineError) as caught:
        pmml.check_pmml_file(path)
    assert words in caught.value.message and caught.value.field == "file"


def test_pmml_is_refused_when_it_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pmml"
    path.write_text(document(LINEAR))
    monkeypatch.setattr(xml_text, "MAX_BYTES", 100)
    with pytest.raises(EngineError, match="larger than"):
        pmml.read(path)
    monkeypatch.setattr(xml_text, "MAX_BYTES", 10**6)
    monkeypatch.setattr(xml_text, "MAX_ELEMENTS", 5)
    with pytest.raises(EngineError, match="too many elements"):
        pmml.read(path)


def test_scan_describes_a_folder_when_it_holds_one_pmml_file(task: Task, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "model.pmml").write_text(document(LINEAR))
    value: dict[str, Any] = task("engine.scan.tasks:scan_source", source=folder).value
    assert (value["verdict"], value["framework"]) == ("clean", "pmml")
    assert [each["name"] for each in value["signature"]["inputs"]] == ["a", "b"]
    (folder / "model.pmml").write_bytes(HOSTILE["entities"][0])
    value = task("engine.scan.tasks:scan_source", source=folder).value
    assert value["verdict"] == "rejected" and "document type" in value["findings"][0]["message"]
