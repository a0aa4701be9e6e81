"""RegressionModel: weighted sums, and what makes probabilities of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.export.to_onnx.pmml.expressions import Call, Expression, equals, number, refuse
from engine.export.to_onnx.pmml.graph import Graph
from engine.export.to_onnx.pmml.models import Result, position
from engine.export.to_onnx.pmml.scope import Scope

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_INVERSE_LINKS = {"logit": "Sigmoid", "exp": "Exp"}


def draw(model: Element, scope: Scope, graph: Graph, labels: list[Any] | None) -> Result:
    """Regression: one table, normalization none, logit or exp. Classification: softmax of any number of classes;
    logit or none of two, where the second probability is 1 minus the first (by the order of the tables)."""
    tables = model.findall("RegressionTable")
    method = model.get("normalizationMethod", "none")
    if model.get("functionName") == "regression":
        if len(tables) != 1 or method not in {"none", *_INVERSE_LINKS}:
            raise refuse(f"RegressionModel of {len(tables)} tables with normalizationMethod {method}")
        sums = _sums(tables, scope, graph)
        return Result(graph.add(_INVERSE_LINKS[method], sums) if method != "none" else sums, None, scope)
    names = [each.get("targetCategory") for each in tables]
    classes = list(names) if labels is None else labels
    order = [position(classes, name, table) for name, table in zip(names, tables, strict=True)]
    if sorted(order) != list(range(len(classes))):
        raise refuse("RegressionModel without exactly one RegressionTable a class")
    if method == "softmax":
        scores = graph.add("Softmax", _sums(tables, scope, graph), axis=1)
    elif method in {"logit", "none"} and len(tables) == 2:
        scores = _of_two(_sums(tables[:1], scope, graph), method, graph)
    else:
        raise refuse(f"RegressionModel of {len(tables)} classes with normalizationMethod {method}")
    return Result(graph.pick(scores, [order.index(i) for i in range(len(order))], len(order)), classes, scope)


def _of_two(sums: str, method: str, graph: Graph) -> str:
    import numpy as np

    first = graph.add("Sigmoid", sums) if method == "logit" else sums
    return graph.joined([first, graph.add("Sub", graph.constant(np.array([[1.0]])), first)])


def _sums(tables: list[Element], scope: Scope, graph: Graph) -> str:
    """intercept + sum of coefficient * term, one column a table."""
    import numpy as np

    terms: dict[Expression, int] = {}
    entries: list[tuple[int, int, float]] = []
    for column, table in enumerate(tables):
        for each in table:
            if each.tag == "Extension":
                continue
            index = terms.setdefault(_term(each, scope), len(terms))
            entries.append((index, column, number(each.get("coefficient"), each.tag)))
    intercepts = np.array([[number(each.get("intercept", "0"), "RegressionTable") for each in tables]])
    if not terms:
        raise refuse("RegressionModel without predictors")
    weights = np.zeros((len(terms), len(tables)))
    for index, column, coefficient in entries:
        weights[index, column] += coefficient
    product = graph.add("MatMul", graph.columns(tuple(terms)), graph.constant(weights))
    return graph.add("Add", product, graph.constant(intercepts))


def _term(each: Element, scope: Scope) -> Expression:
    if each.tag == "NumericPredictor":
        power = number(each.get("exponent", "1"), each.tag)
        if power not in range(1, 9):
            raise refuse(f"NumericPredictor with the exponent {power:g}")
        return _product([scope.field(each.get("name", ""))] * int(power))
    if each.tag == "CategoricalPredictor":
        return equals(scope.field(each.get("name", "")), each.get("value", ""))
    if each.tag == "PredictorTerm" and len(each) and all(part.tag == "FieldRef" for part in each):
        return _product([scope.field(part.get("field", "")) for part in each])
    raise refuse(f"{each.tag} in a RegressionTable")


def _product(fields: list[Expression]) -> Expression:
    if any(field.type == "string" for field in fields):
        raise refuse("a product with text in a RegressionTable")
    made = fields[0]
    for field in fields[1:]:
        made = Call("*", (made, field), "double")
    return made
