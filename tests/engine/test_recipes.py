"""Recipes and the rows they learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from engine.errors import EngineError
from engine.evaluate.rows import Rows
from engine.optimize.lab.trial import Survey
from engine.optimize.recipe import Recipe
from engine.optimize.sampling import split, stratified
from engine.optimize.survey import survey


def rows(counts: dict[int, int]) -> Rows:
    y = np.repeat(list(counts), list(counts.values()))
    return Rows(["x"], np.arange(len(y), dtype=np.float32)[:, None], None, y)


def test_every_class_has_its_share_when_rows_are_sampled() -> None:
    found = stratified(rows({0: 900, 1: 90, 2: 10}), 100, seed=1)
    assert np.bincount(found.y).tolist() == [90, 9, 1]
    again = stratified(rows({0: 900, 1: 90, 2: 10}), 100, seed=1)
    assert (found.matrix == again.matrix).all()


def test_parts_share_no_row_when_rows_are_split() -> None:
    first, rest = split(rows({0: 60, 1: 40}), 0.3, seed=2)
    assert np.bincount(first.y).tolist() == [18, 12] and len(rest) == 70
    assert not set(first.matrix[:, 0]) & set(rest.matrix[:, 0])


def test_key_is_the_same_when_defaults_are_written_out() -> None:
    short = Recipe.of(("dynamic-quantization", {}))
    assert short.key == Recipe.of(("dynamic-quantization", {"per_channel": False})).key
    assert short.key != Recipe.of(("dynamic-quantization", {"per_channel": True})).key
    assert short.label == "Dynamic int8 quantization" and not short.needs


def test_error_names_the_option_when_it_is_unknown() -> None:
    with pytest.raises(EngineError) as caught:
        Recipe.of(("dynamic-quantization", {"bits": 8})).checked()
    assert caught.value.field == "options.bits"


def test_bytes_are_whole_when_weights_have_four_bits(tmp_path: Path) -> None:
    weights = helper.make_tensor("w", TensorProto.UINT4, [3], [1, 2, 3])
    node = helper.make_node("DequantizeLinear", ["w", "s"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("s", TensorProto.FLOAT, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
        [weights],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString())
    assert Survey.model_validate(survey(path)).weight_bytes == 2
