"""What every model class gives, and which file draws which."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from engine.export.to_onnx.pmml.expressions import number, refuse
from engine.export.to_onnx.pmml.graph import Graph
from engine.export.to_onnx.pmml.scope import Scope

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_KINDS = {"RegressionModel": "regression", "TreeModel": "trees", "MiningModel": "mining", "NeuralNetwork": "network"}


@dataclass(frozen=True)
class Result:
    """scores: tensor [N, classes] of probabilities, or [N, 1] of numbers when labels is None. scope: the model's.
    ranks: tensor whose greatest column is the label, where the scores alone do not decide ties."""

    scores: str
    labels: list[Any] | None
    scope: Scope
    ranks: str | None = None


def draw(model: Element, outer: Scope, graph: Graph, labels: list[Any] | None) -> Result:
    """Any model. labels: of a classification, in the order wanted; None when only the model itself tells them."""
    if model.tag not in _KINDS:
        raise refuse(model.tag)
    if model.get("functionName") not in {"classification", "regression"}:
        raise refuse(f"{model.tag} with functionName {model.get('functionName')}")
    if model.get("isScorable") == "false":
        raise refuse(f"{model.tag} that is not scorable")
    wanted = labels if model.get("functionName") == "classification" else None
    module = importlib.import_module(f"engine.export.to_onnx.pmml.{_KINDS[model.tag]}")
    made: Result = module.draw(model, outer.inside(model), graph, wanted)
    return Result(_rescaled(model, made, graph), made.labels, made.scope, made.ranks)


def position(labels: list[Any], text: str | None, element: Element) -> int:
    """Index of a class by its text in the document: 1 and "1.0" are the same number."""
    for index, label in enumerate(labels):
        if str(label) == text:
            return index
    try:
        return [float(label) for label in labels].index(float(text or ""))
    except ValueError as error:
        raise EngineError(
            f"{element.tag} names the class '{(text or '')[:40]}', which the target field does not have.", field="file"
        ) from error


def _rescaled(model: Element, made: Result, graph: Graph) -> str:
    """The Targets element of a regression: score * rescaleFactor + rescaleConstant."""
    import numpy as np

    targets = model.findall("Targets/Target")
    if not targets:
        return made.scores
    allowed = {"field", "rescaleFactor", "rescaleConstant", "optype"}
    if len(targets) > 1 or made.labels is not None or set(targets[0].keys()) - allowed or len(targets[0]):
        raise refuse("Target with anything but rescaleFactor and rescaleConstant")
    scores = made.scores
    for attribute, operator, nothing in (("rescaleFactor", "Mul", 1.0), ("rescaleConstant", "Add", 0.0)):
        value = number(targets[0].get(attribute, str(nothing)), "Target")
        if value != nothing:
            scores = graph.add(operator, scores, graph.constant(np.array([[value]])))
    return scores
