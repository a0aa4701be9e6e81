"""The sandboxed task that says what a model is for, of what its ONNX graph gives and its rows hold."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, Literal

OTHER = "other"
_NAMES_CLASSES = {"INT64", "INT32", "BYTES"}
_CLASS_SCORES = {"Softmax", "LogSoftmax", "Sigmoid"}
_KEEPS = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"}  # after the last real operator
# Their converters always write a classifier's labels, so that numbers alone are a regression.
_TELLS_LABELS = {"sklearn", "lightgbm", "xgboost", "pmml"}
_MOST_CLASSES = 1000
_ROWS_PER_CLASS = 4

Target = Literal["classes", "numbers"]


def guess(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """{"task": as `registry.models.Task` has it, "reason": one sentence} for inputs["file"] (checked ONNX) and the
    evaluation rows inputs["rows"]. params: framework, target (name of the column)."""
    from engine.evaluate.rows import load
    from engine.formats import signature
    from engine.scan import onnx_structure

    model = onnx_structure.parse(inputs["file"].read_bytes())
    rows = load(inputs["rows"], str(params.get("target") or "target"))
    task, reason = task_of(
        str(params.get("framework") or ""), signature.of_onnx(model), last_operators(model), kind_of_target(rows.y)
    )
    return {"task": task, "reason": reason}


def last_operators(model: Any) -> dict[str, str]:
    """{output of the graph: the operator that makes it}, seen through what only changes its form."""
    makers = {name: node for node in model.graph.node for name in node.output if name}
    found = {}
    for output in model.graph.output:
        node = makers.get(output.name)
        while node is not None and node.op_type in _KEEPS and node.input and node.input[0] in makers:
            node = makers[node.input[0]]
        found[output.name] = node.op_type if node is not None else ""
    return found


def kind_of_target(y: Any) -> Target | None:
    """classes: texts, or whole numbers from 0 of which each is there several times; None without a target."""
    import numpy as np

    if y is None:
        return None
    if y.dtype.kind not in "iuf":
        return "classes"
    values = np.unique(y)
    whole = bool(np.all(np.isfinite(values)) and np.all(values == np.floor(values)) and values[0] >= 0)
    few = 2 <= len(values) <= min(_MOST_CLASSES, len(y) // _ROWS_PER_CLASS)
    return "classes" if whole and few and values[-1] < _MOST_CLASSES else "numbers"


def task_of(framework: str, described: Any, last: dict[str, str], target: Target | None) -> tuple[str, str]:
    """(task, why). "other" where the signs are missing or speak against each other: a person says it then."""
    pictures = any(len(each["shape"]) == 4 for each in described["inputs"])
    classification = "image-classification" if pictures else "tabular-classification"
    scores = next((each for each in described["outputs"] if each["datatype"].startswith("FP")), None)
    if any(each["datatype"] in _NAMES_CLASSES for each in described["outputs"]):
        return classification, "It names classes."
    if framework in _TELLS_LABELS:
        return "tabular-regression", "It gives numbers and no classes."
    if scores is None:
        return OTHER, "It gives neither numbers nor classes: say on the model's page what it is for."
    operator, width = last.get(scores["name"], ""), prod(scores["shape"][1:])
    if target == "classes" and operator in _CLASS_SCORES:
        return classification, f"It ends in {operator}, and the target of the rows are classes."
    if target == "classes" and width > 1:
        return classification, f"It gives {width} numbers for each row, and the target of the rows are classes."
    if target is None and operator in {"Softmax", "LogSoftmax"} and width > 1:
        return classification, f"It ends in {operator}."
    if target == "numbers" and width == 1 and operator not in _CLASS_SCORES:
        return "tabular-regression", "It gives one number for each row, and the target of the rows are numbers."
    return OTHER, "Its output and the target of the rows do not tell what it is for: say it on the model's page."
