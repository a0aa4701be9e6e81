"""Groups of evaluation rows: which there are, what the model is not fed with, and how each is guarded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from engine.errors import EngineError
from engine.evaluate import groups, paired, rows
from engine.evaluate.outputs import Outputs
from engine.evaluate.tasks import judge
from engine.optimize.lab.goal import Goal
from engine.optimize.lab.promise import quality_breach
from engine.optimize.lab.trial import Judgement
from tests.e2e import small

FOUR = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}
NAMED = {"inputs": [{"name": name, "datatype": "FP32", "shape": [-1, 1]} for name in ("f0", "f1", "f2", "f3")]}


def frame(count: int = 200) -> pandas.DataFrame:
    random = np.random.default_rng(1)
    found = pandas.DataFrame({f"f{index}": random.normal(size=count) for index in range(4)})
    found["site"] = ["north" if index % 4 else "south" for index in range(count)]
    found["age"] = np.arange(count) % 80
    found["floor"] = np.arange(count) % 3
    found["name"] = [f"p{index}" for index in range(count)]
    found["target"] = random.integers(0, 3, count)
    return found


def grouped(
    folder: Path, data: pandas.DataFrame, slices: list[str], signature: Any = FOUR, **more: Path
) -> dict[str, Any]:
    file = folder / "rows.csv"
    data.to_csv(file, index=False)
    params = {"slices": slices, "signature": signature, "target": "target"}
    return groups.grouped(params=params, inputs={"evaluation": file, **more}, out=folder)


def test_texts_and_few_numbers_are_groups_as_they_are_and_many_numbers_by_quarters(tmp_path: Path) -> None:
    grouped(tmp_path, frame().drop(columns="name"), ["site", "age", "floor"])
    found = groups.read(tmp_path / "groups.json")
    assert found["site"][0] == ["north", "south"] and found["floor"][0] == ["0", "1", "2"]
    names, places = found["age"]
    assert len(names) == 4 and names[0].startswith("≤ ") and names[3].startswith("> ")
    assert np.bincount(places).min() > 40 and len(places) == 200


def test_groups_of_large_numbers_are_kept_apart_or_refused(tmp_path: Path) -> None:
    data = frame().drop(columns=["name", "site"])
    data["site"] = np.where(np.arange(200) % 2, 1_000_001, 1_000_002)
    data["share"] = np.where(np.arange(200) % 2, 0.1234561, 0.1234562)
    grouped(tmp_path, data, ["site", "share"])
    found = groups.read(tmp_path / "groups.json")
    assert found["site"][0] == ["1000001", "1000002"] and len(found["share"][0]) == 2
    data["site"] += 10**9
    with pytest.raises(EngineError, match="no longer told apart") as caught:
        grouped(tmp_path, data, ["site"])
    assert caught.value.field == "slices"


def test_rows_without_names_of_features_are_kept_however_wide(tmp_path: Path) -> None:
    x = np.random.default_rng(2).normal(size=(3, rows.MAX_COLUMNS + 8)).astype(np.float32)
    for y in (np.array(["a", "b", "a"]), np.array([1, 2, 3]), np.array([0.5, 1.5, 2.5])):
        np.savez(tmp_path / "wide.npz", X=x, y=y)
        rows.save(rows.load(tmp_path / "wide.npz"), "label", tmp_path / "again.parquet")
        again = rows.load(tmp_path / "again.parquet", "label")
        assert (again.matrix == x).all() and again.y.tolist() == y.tolist()


def test_rise_of_a_group_that_was_right_everywhere_is_counted_in_the_error_of_all() -> None:
    truth = np.concatenate([np.zeros(20), np.linspace(1, 5, 20)])
    before = Outputs(scores=(truth + np.where(truth, 1.0, 0.0))[:, None], labels=None)
    after = Outputs(scores=before.scores + np.where(truth, 0.0, 0.001)[:, None], labels=None)
    parts = {"open": (["no", "yes"], (truth > 0).astype(int))}
    judged = paired.judge("tabular-regression", before, after, truth, groups=parts)
    assert judged["slices"][0]["loss"] == pytest.approx(100 * 0.001 / (0.1 * 0.5**0.5))
    assert judged["slices"][1]["loss"] == pytest.approx(0)


@pytest.mark.parametrize("signature", [FOUR, NAMED], ids=["one tensor", "by name"])
def test_column_is_not_fed_to_the_model_when_it_only_slices(tmp_path: Path, signature: Any) -> None:
    file = tmp_path / "calibration.csv"
    frame(50).drop(columns=["name", "floor"]).to_csv(file, index=False)
    made = grouped(tmp_path, frame().drop(columns=["name", "floor"]), ["site", "age"], signature, calibration=file)
    assert made == {"aside": ["site", "age"], "rows": {"evaluation": 200, "calibration": 50}}
    for name, count in made["rows"].items():
        fed = rows.load(tmp_path / f"{name}.parquet")
        assert fed.columns == ["f0", "f1", "f2", "f3"] and len(fed) == count and fed.matrix is not None
        assert fed.y is not None


def test_column_is_fed_to_the_model_when_it_is_an_input(tmp_path: Path) -> None:
    plain = frame()[["f0", "f1", "f2", "age", "target"]]
    assert grouped(tmp_path, plain, ["age"]) == {"aside": [], "rows": {}}
    assert grouped(tmp_path, plain.assign(site="a"), ["age", "site"])["aside"] == ["site"]
    assert grouped(tmp_path, frame()[["f0", "f1", "f2", "f3", "site", "target"]], ["f0", "site"], NAMED)["aside"] == [
        "site"
    ]
    with pytest.raises(EngineError, match="cannot be told which"):
        grouped(tmp_path, plain.assign(f3=1.0), ["age", "f3"])


def test_column_beside_x_slices_when_the_rows_are_arrays(tmp_path: Path) -> None:
    file = tmp_path / "rows.npz"
    x = np.random.default_rng(0).normal(size=(40, 2, 2)).astype(np.float32)
    np.savez(file, X=x, y=np.arange(40) % 2, site=np.array(["a", "b"] * 20))
    params = {"slices": ["site"], "signature": FOUR, "target": "target"}
    made = groups.grouped(params=params, inputs={"evaluation": file}, out=tmp_path)
    assert made["aside"] == ["site"] and groups.read(tmp_path / "groups.json")["site"][0] == ["a", "b"]
    assert np.array_equal(rows.load(tmp_path / "evaluation.parquet").matrix, x.reshape(40, 4))


@pytest.mark.parametrize(
    ("column", "words"), [("nowhere", "no column"), ("name", "200 values"), ("target", "is the target")]
)
def test_slices_are_refused_when_they_cannot_be_guarded(tmp_path: Path, column: str, words: str) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        grouped(tmp_path, frame(), [column])
    assert caught.value.field == "slices"


def test_group_is_guarded_like_a_class_when_it_has_rows_enough(tmp_path: Path) -> None:
    truth = np.zeros(400, dtype=int)
    after = truth.copy()
    after[:12] = 1
    sites = (["a", "b", "c"], np.array([0] * 40 + [1] * 351 + [2] * 9))
    found = paired.judge("tabular-classification", Outputs(truth, None), Outputs(after, None), truth,
                         groups={"site": sites})  # fmt: skip
    judged = Judgement.model_validate(found)
    told = {(one.column, one.name): (one.rows, one.loss) for one in judged.slices}
    assert told == {
        ("", "0"): (400, 3.0), ("site", "a"): (40, 30.0), ("site", "b"): (351, 0.0), ("site", "c"): (9, 0.0)
    }  # fmt: skip
    broken = quality_breach(Goal(max_loss=4), judged)
    assert str(broken) == "Where site is a it loses 30.00 points (20 may be lost)."
    assert quality_breach(Goal(max_loss=4, max_slice_loss=30), judged) is None


def test_group_is_guarded_in_the_unit_of_the_loss_when_there_are_no_classes() -> None:
    truth = np.random.default_rng(1).normal(size=100)
    parts = (["a", "b"], np.array([0, 1] * 50))
    off = np.where(parts[1] == 0, 0.1, 0.15)
    before, after = Outputs(None, (truth + 0.1)[:, None]), Outputs(None, (truth + off)[:, None])
    judged = Judgement.model_validate(paired.judge("tabular-regression", before, after, truth, groups={"part": parts}))
    assert [round(one.loss) for one in judged.slices] == [0, 50] and judged.worst is not None
    assert "it loses 50.00 % of the error" in str(quality_breach(Goal(max_loss=40, max_slice_loss=45), judged))
    agreed = paired.judge("embedding", before, after, None, groups={"part": parts})
    assert [one["loss"] for one in agreed["slices"]] == [0.0, 100.0]


def test_judge_knows_the_groups_when_they_were_written(tmp_path: Path) -> None:
    grouped(tmp_path, frame().drop(columns=["name", "floor", "age"]), ["site"])
    model, other = tmp_path / "a.onnx", tmp_path / "b.onnx"
    model.write_bytes(small.classifier(1))
    other.write_bytes(small.classifier(2))
    inputs = {"model": other, "reference": model, "rows": tmp_path / "evaluation.parquet"}
    inputs["groups"] = tmp_path / "groups.json"
    found = judge(params={"task": "tabular-classification"}, inputs=inputs, out=tmp_path)
    assert [(one["column"], one["name"], one["rows"]) for one in found["slices"]][3:] == [
        ("site", "north", 150),
        ("site", "south", 50),
    ]


def test_goal_refuses_slices_that_are_too_many_or_named_twice() -> None:
    assert Goal.model_validate({"slices": ["a", "b"]}).slices == ("a", "b")
    for wrong in (["a", "b", "c", "d"], ["a", "a"], [""]):
        with pytest.raises(ValueError, match="slices"):
            Goal.model_validate({"slices": wrong})
