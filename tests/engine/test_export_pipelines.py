"""Pipelines of scikit-learn as ONNX: texts, mixed tables, and which step is at fault when one converts wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import skl2onnx
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.algebra.onnx_ops import OnnxSub
from skl2onnx.common._registration import _converter_pool, _shape_calculator_pool
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from engine.errors import EngineError
from engine.evaluate.rows import from_frame
from engine.export import tasks
from engine.export.first_difference import first_difference
from engine.export.onnx_exporter import OnnxExporter
from tests.engine.conftest import Task, save

EXPORT = "engine.export.tasks:export"
SUBJECTS = ["film", "Book", "meal", "hotel room", "phone", "café", "journey", "service"]
GOOD = ["good", "really fine", "GREAT", "lovely,", "well made"]
BAD = ["bad", "rather dull", "awful!", "broken", "badly made"]
ENDS = ["", " and cheap", "; I'd come again", " (in 2024)", " - so they say"]


def sentences() -> pd.DataFrame:
    """400 short reviews with capitals, accents, digits, and marks between the words."""
    rows = [
        (f"The {subject} was {word}{end}", mood)
        for subject in SUBJECTS
        for mood, words in (("good", GOOD), ("bad", BAD))
        for word in words
        for end in ENDS
    ]
    return pd.DataFrame(rows, columns=["text", "target"]).sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.mark.parametrize("grams", [(1, 1), (1, 2)], ids=["words", "pairs"])
def test_onnx_gives_the_same_labels_when_rows_are_sentences(grams: tuple[int, int], task: Task, tmp_path: Path) -> None:
    frame = sentences()
    model = make_pipeline(TfidfVectorizer(ngram_range=grams, sublinear_tf=True), LogisticRegression())
    model.fit(frame.text[:300], frame.target[:300])
    folder = save(
        model, tmp_path / "text", frame[["text"]].head(4), frame.target[:4], serialization_format="cloudpickle"
    )
    # Words nobody trained with, words of one letter, and a text without any.
    more = pd.DataFrame({"text": ["Unheard of things", "a I u", "42", "naïve GOOD film"], "target": "good"})
    pd.concat([frame, more]).to_csv(tmp_path / "rows.csv", index=False)
    result = task(EXPORT, {"exporter": "onnx"}, source=folder, rows=tmp_path / "rows.csv")
    parity = result.value["parity"]
    assert parity["rows"] == 404 and parity["max_abs"] < 1e-5 and parity["agreement"] == 1.0
    assert result.value["labels"] == ["bad", "good"]
    session = onnxruntime.InferenceSession(result.files / "model.onnx")
    for count in (1, 3):
        labels, _ = session.run(None, {"input": frame[["text"]].to_numpy(dtype=object)[:count]})
        assert list(labels) == list(model.predict(frame.text[:count]))


def test_onnx_matches_when_columns_are_filled_scaled_and_encoded(task: Task, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "rooms": random.integers(1, 9, 300).astype(float),
            "area": random.lognormal(4, 0.4, 300),
            "town": random.choice(["Bern", "Köln", "Lille"], 300),
            "state": random.choice(["new", "old"], 300),
        }
    )
    frame.loc[::7, "area"] = np.nan
    price = frame.rooms * 3 + frame.area.fillna(50) * 0.2 + (frame.town == "Bern") * 10
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = ColumnTransformer(
        [("n", numbers, ["area", "rooms"]), ("w", OneHotEncoder(handle_unknown="ignore"), ["town", "state"])]
    )
    model = make_pipeline(columns, Ridge()).fit(frame, price)
    folder = save(model, tmp_path / "mixed", frame.head(5), price[:5], serialization_format="cloudpickle")
    frame.loc[0, "town"] = "Oslo"
    frame.assign(target=price).to_csv(tmp_path / "rows.csv", index=False)
    value = task(EXPORT, {"exporter": "onnx"}, source=folder, rows=tmp_path / "rows.csv").value
    assert value["parity"]["rows"] == 300 and value["parity"]["max_rel"] < 1e-5 and value["labels"] is None
    assert {each["name"]: (each["datatype"], each["shape"][0]) for each in value["signature"]["inputs"]} == {
        "rooms": ("FP32", -1), "area": ("FP32", -1), "town": ("BYTES", -1), "state": ("BYTES", -1),
    }  # fmt: skip


class Bent(StandardScaler):
    """A scaler whose converter forgets to divide."""


def bent_shapes(operator: Any) -> None:
    operator.outputs[0].type = type(operator.inputs[0].type)([None, operator.raw_operator.n_features_in_])


def bent_converter(scope: Any, operator: Any, container: Any) -> None:
    mean = operator.raw_operator.mean_.astype(np.float32)
    made = OnnxSub(
        operator.inputs[0], mean, op_version=container.target_opset, output_names=[operator.outputs[0].full_name]
    )
    made.add_to(scope, container)


@pytest.fixture
def bent() -> Iterator[None]:
    """skl2onnx knows the wrong converter for the length of a test."""
    skl2onnx.update_registered_converter(Bent, "SlipwayBent", bent_shapes, bent_converter)
    yield
    del sklearn_operator_name_map[Bent], _converter_pool["SlipwayBent"], _shape_calculator_pool["SlipwayBent"]


@pytest.mark.parametrize("place", [1, 2])
def test_message_names_the_first_step_when_its_converter_is_wrong(place: int, bent: None, tmp_path: Path) -> None:
    x, y = load_wine(return_X_y=True)
    steps: list[tuple[str, Any]] = [("fill", SimpleImputer()), ("pick", PCA(5)), ("decide", LogisticRegression())]
    steps.insert(place, ("scale", Bent()))
    model = Pipeline(steps).fit(x, y)
    folder = save(model, tmp_path / "bent", x[:5], y[:5], serialization_format="cloudpickle")
    plugin = OnnxExporter()
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(EngineError, match=r"; the first difference is after step 'scale'\.$") as caught:
        tasks.convert(plugin, plugin.Options(), {}, {"source": folder}, out)
    assert caught.value.code == "parity" and "predicts something else" in caught.value.message


def test_first_difference_is_in_the_last_step_when_all_before_agree() -> None:
    x, y = load_wine(return_X_y=True)
    rows = from_frame(pd.DataFrame(x), None)
    model = Pipeline([("scale", StandardScaler()), ("off", "passthrough"), ("decide", LogisticRegression())]).fit(x, y)
    assert first_difference(model, rows, None, 1e-4) == "decide"


def test_first_difference_is_unknown_when_a_step_cannot_be_converted() -> None:
    x, y = load_wine(return_X_y=True)
    rows = from_frame(pd.DataFrame(x), None)
    own = Pipeline([("own", FunctionTransformer(np.log1p)), ("decide", LogisticRegression(max_iter=5000))]).fit(x, y)
    assert first_difference(own, rows, None, 1e-4) is None
    assert first_difference(own[-1], rows, None, 1e-4) is None
