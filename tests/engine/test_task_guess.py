"""What a model is for: told where its graph and its rows agree, left open otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sklearn.datasets import load_diabetes, load_digits

from engine.evaluate.task_guess import guess, kind_of_target


def network(path: Path, width: int, operators: list[str], shape: list[Any]) -> Path:
    """A linear layer of zeros and then the operators, one after another."""
    size = int(np.prod(shape[1:]))
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["v0"])]
    for index, operator in enumerate(operators):
        nodes.append(helper.make_node(operator, [f"v{index}"], [f"v{index + 1}"]))
    outputs = [helper.make_tensor_value_info(f"v{len(operators)}", TensorProto.FLOAT, ["n", width])]
    if operators[-1:] == ["ArgMax"]:
        outputs = [helper.make_tensor_value_info(f"v{len(operators)}", TensorProto.INT64, [1, width])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape[1:]])]
    weights = [onnx.numpy_helper.from_array(np.zeros((size, width), np.float32), "w")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def rows(path: Path, y: Any) -> Path:
    np.savez(path, X=np.zeros((len(y), 64), np.float32), **({} if y is None else {"y": y}))
    return path


DIGITS, DIABETES = load_digits().target, load_diabetes().target
COIN, MONEY = DIGITS % 2, np.linspace(0, 9, 500)
FLAT, PICTURE = ["n", 64], ["n", 1, 8, 8]


@pytest.mark.parametrize(
    ("width", "operators", "shape", "y", "framework", "task"),
    [
        (10, ["Softmax"], FLAT, DIGITS, "keras", "tabular-classification"),
        (10, ["Softmax", "Identity"], PICTURE, DIGITS, "keras", "image-classification"),
        (10, [], PICTURE, DIGITS, "pytorch", "image-classification"),
        (1, ["Sigmoid"], FLAT, COIN, "pytorch", "tabular-classification"),
        (10, ["ArgMax"], FLAT, DIGITS, "onnx", "tabular-classification"),
        (1, [], FLAT, DIABETES, "pytorch", "tabular-regression"),
        (1, [], FLAT, MONEY, "onnx", "tabular-regression"),
        (1, [], FLAT, DIABETES, "sklearn", "tabular-regression"),
        (1, [], FLAT, COIN, "pytorch", "other"),  # a logit, or a number that happens to be 0 or 1
        (3, [], FLAT, MONEY, "pytorch", "other"),
        (1, ["Sigmoid"], FLAT, MONEY, "pytorch", "other"),
    ],
)
def test_task_is_told_when_graph_and_rows_agree(
    width: int, operators: list[str], shape: list[Any], y: Any, framework: str, task: str, tmp_path: Path
) -> None:
    inputs = {
        "file": network(tmp_path / "model.onnx", width, operators, shape),
        "rows": rows(tmp_path / "rows.npz", y),
    }
    found = guess(params={"framework": framework, "target": "target"}, inputs=inputs, out=tmp_path)
    assert found["task"] == task and found["reason"].endswith(".")
    assert ("say it on the model's page" in found["reason"]) == (task == "other")


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (None, None),
        (np.array(["a", "b"], object), "classes"),
        (DIGITS, "classes"),
        (DIGITS.astype(float), "classes"),
        (DIABETES, "numbers"),
        (np.array([-1, 1] * 50), "numbers"),
        (np.arange(40), "numbers"),
        (np.array([np.nan, 0.0, 1.0]), "numbers"),
    ],
)
def test_target_is_of_classes_when_few_whole_numbers_come_back_often(y: Any, kind: str | None) -> None:
    assert kind_of_target(y) == kind
