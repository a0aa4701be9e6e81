"""MiningModel: segments that are always used, put together; trees become one operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.export.to_onnx.pmml.ensemble import Ensemble
from engine.export.to_onnx.pmml.expressions import Made, expression, number, refuse
from engine.export.to_onnx.pmml.graph import Graph
from engine.export.to_onnx.pmml.models import Result, position
from engine.export.to_onnx.pmml.models import draw as draw_any
from engine.export.to_onnx.pmml.scope import Scope
from engine.export.to_onnx.pmml.trees import Tree, classes_of

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_VOTES = {"majorityVote": False, "weightedMajorityVote": True}
_MEANS = {"average": False, "weightedAverage": True}
_TIE = 1e-9  # less than any two sums of votes differ by
_METHODS = {"sum", "modelChain", *_VOTES, *_MEANS}


def draw(model: Element, scope: Scope, graph: Graph, labels: list[Any] | None) -> Result:
    """sum (numbers), average and weightedAverage (numbers or probabilities), majorityVote and weightedMajorityVote
    (shares of the votes), modelChain (the last segment's result)."""
    segmentation = model.find("Segmentation")
    method = "" if segmentation is None else segmentation.get("multipleModelMethod", "")
    if segmentation is None or method not in _METHODS:
        raise refuse(f"MiningModel with multipleModelMethod {method}")
    segments = segmentation.findall("Segment")
    if not segments or any(each.find("True") is None for each in segments):
        raise refuse("Segment with a predicate other than True")
    models = [_model(each) for each in segments]
    classifies = model.get("functionName") == "classification"
    if method == "modelChain":
        return _chain(models, scope, graph, labels)
    if any((each.get("functionName") == "classification") is not classifies for each in models):
        raise refuse(f"MiningModel with segments of another functionName and multipleModelMethod {method}")
    if (classifies and method == "sum") or (method in _VOTES and not classifies):
        raise refuse(f"MiningModel of a {model.get('functionName')} with multipleModelMethod {method}")
    weighted = _VOTES.get(method, False) or _MEANS.get(method, False)
    weights = [number(each.get("weight", "1"), "Segment") if weighted else 1.0 for each in segments]
    if method != "sum":
        if any(each < 0 for each in weights) or not sum(weights) > 0:
            raise refuse("Segment with weights that are not positive")
        weights = [each / sum(weights) for each in weights]
    forgiving = segmentation.get("missingPredictionTreatment", "continue") != "returnMissing"
    if method not in _VOTES and all(each.tag == "TreeModel" and each.find("Targets") is None for each in models):
        made, may_miss = _trees(models, weights, scope, graph, labels)
        if may_miss and forgiving:
            raise refuse("Segmentation with missingPredictionTreatment other than returnMissing")
        return made
    if method in _VOTES:
        return _votes(models, weights, scope, graph, labels)
    return _others(models, weights, scope, graph, labels)


def _model(segment: Element) -> Element:
    found = [each for each in segment if each.tag not in {"True", "Extension"}]
    if len(found) != 1:
        raise refuse("Segment without one model")
    return found[0]


def _trees(
    models: list[Element], weights: list[float], scope: Scope, graph: Graph, labels: list[Any] | None
) -> tuple[Result, bool]:
    classes = classes_of(models[0], labels)
    ensemble = Ensemble(len(classes or [0]))
    for model, weight in zip(models, weights, strict=True):
        Tree(model, scope.inside(model), classes, ensemble).add(weight)
    return Result(ensemble.drawn(graph), classes, scope), ensemble.may_be_missing


def _others(
    models: list[Element], weights: list[float], scope: Scope, graph: Graph, labels: list[Any] | None
) -> Result:
    import numpy as np

    classes, total = labels, ""
    for model, weight in zip(models, weights, strict=True):
        made = draw_any(model, scope, graph, classes)
        classes = made.labels
        scores = graph.add("Mul", made.scores, graph.constant(np.array([[weight]])))
        total = graph.add("Add", total, scores) if total else scores
    return Result(total, classes, scope)


def _votes(models: list[Element], weights: list[float], scope: Scope, graph: Graph, labels: list[Any] | None) -> Result:
    """Of classes with as many votes the one that got its first vote earlier wins, as with jpmml-evaluator."""
    import numpy as np

    classes, total, first = labels, "", ""
    for index, (model, weight) in enumerate(zip(models, weights, strict=True)):
        made = draw_any(model, scope, graph, classes)
        classes = made.labels or []
        best, unit = graph.add("ArgMax", made.ranks or made.scores, axis=1, keepdims=0), np.eye(len(classes))
        vote = graph.add("Gather", graph.constant(unit * weight), best, axis=0)
        early = graph.add("Gather", graph.constant(unit * (len(models) - index)), best, axis=0)
        total = graph.add("Add", total, vote) if total else vote
        first = graph.add("Max", first, early) if first else early
    small = graph.add("Mul", first, graph.constant(np.array([[_TIE / len(models)]])))
    return Result(total, classes, scope, graph.add("Add", total, small))


def _chain(models: list[Element], scope: Scope, graph: Graph, labels: list[Any] | None) -> Result:
    """Each model's outputs are fields of those after it."""
    last: Result | None = None
    for model in models:
        last = draw_any(model, scope, graph, labels)
        inner = Scope(last.scope)
        for each in model.iterfind("Output/OutputField"):
            _bind(each, last, inner, scope)
    assert last is not None
    return last


def _bind(field: Element, made: Result, inner: Scope, scope: Scope) -> None:
    """Outputs that cannot be drawn are left unknown: only who refers to one is refused."""
    feature, name = field.get("feature", "predictedValue"), field.get("name", "")
    if feature == "predictedValue" and made.labels is None:
        bound: Any = Made(made.scores, 0, 1)
    elif feature == "probability" and made.labels is not None:
        bound = Made(made.scores, position(made.labels, field.get("value"), field), len(made.labels))
    elif feature == "transformedValue" and len(field) == 1:
        bound = expression(field[0], inner)
    else:
        return
    inner.bind(name, bound)
    scope.bind(name, bound)
