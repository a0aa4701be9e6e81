"""TreeModel: nodes with any number of children become the binary nodes of one TreeEnsembleRegressor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from engine.export.to_onnx.pmml.ensemble import Ensemble
from engine.export.to_onnx.pmml.expressions import Call, Expression, equals, number, refuse, rounded
from engine.export.to_onnx.pmml.graph import Graph
from engine.export.to_onnx.pmml.models import Result, position
from engine.export.to_onnx.pmml.scope import Scope

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MODES = {
    "lessOrEqual": "BRANCH_LEQ",
    "lessThan": "BRANCH_LT",
    "greaterThan": "BRANCH_GT",
    "greaterOrEqual": "BRANCH_GTE",
    "equal": "BRANCH_EQ",
    "notEqual": "BRANCH_EQ",  # with its sides exchanged
}
_INFINITY = float("inf")


def draw(model: Element, scope: Scope, graph: Graph, labels: list[Any] | None) -> Result:
    """One tree. The label is the class of the greatest probability, so the leaves must say so too."""
    classes = classes_of(model, labels)
    ensemble = Ensemble(len(classes or [0]))
    Tree(model, scope, classes, ensemble).add(1.0)
    return Result(ensemble.drawn(graph), classes, scope)


def classes_of(model: Element, labels: list[Any] | None) -> list[Any] | None:
    """labels, or the classes that the leaves name where the document names none elsewhere; None for a regression."""
    if model.get("functionName") == "regression" or labels is not None:
        return labels
    named = (each.get("value", "") for each in model.iter("ScoreDistribution"))
    return list(dict.fromkeys([*named, *(each.get("score", "") for each in model.iter("Node") if each.get("score"))]))


class Tree:
    """One TreeModel on its way into an ensemble."""

    def __init__(self, model: Element, scope: Scope, classes: list[Any] | None, ensemble: Ensemble) -> None:
        self.scope, self.classes, self.ensemble = scope, classes, ensemble
        self.missing = model.get("missingValueStrategy", "none")
        if self.missing not in {"none", "nullPrediction", "lastPrediction", "defaultChild"}:
            raise refuse(f"TreeModel with missingValueStrategy {self.missing}")
        self.last = model.get("noTrueChildStrategy", "returnNullPrediction") == "returnLastPrediction"
        root = model.find("Node")
        if root is None or root.find("True") is None:
            raise refuse("TreeModel whose first Node is not always true")
        self.root = root

    def add(self, weight: float) -> None:
        """Adds the tree; its leaves count `weight` times."""
        self.weight = weight
        self.ensemble.begin()
        self._place(self.root, frozenset())

    def _place(self, node: Element, seen: frozenset[Expression]) -> int:
        """Number of the binary node that stands for `node`. seen: fields that cannot be missing here any more."""
        children = node.findall("Node")
        if not children:
            return self._leaf(node)
        tests = [_test(child, self.scope) for child in children]
        known = [seen]
        for test in tests:
            known.append(known[-1] if test is None or self.missing == "none" else known[-1] | {test[0]})
        chosen = self._default(node, children, tests) if self.missing == "defaultChild" else None
        if tests[-1] is None:
            following = self._place(children[-1], known[-1])
            tests, children = tests[:-1], children[:-1]
        else:
            following = self._leaf(node) if self.last else self._nothing()
        for index in range(len(children) - 1, -1, -1):
            test = tests[index]
            if test is None:
                # What comes after a child that is always true is never reached.
                following = self._place(children[index], known[index])
                continue
            field, operator, value = test
            yes = self._place(children[index], known[index + 1])
            sides = (following, yes) if operator == "notEqual" else (yes, following)
            to_yes = chosen is children[index]
            branch = self.ensemble.branch(
                field, _MODES[operator], value, *sides, missing_true=to_yes is not (operator == "notEqual")
            )
            following = self._guarded(node, branch, field, operator, following, known[index])
        return following

    def _guarded(
        self, node: Element, branch: int, field: Expression, operator: str, no: int, known: frozenset[Expression]
    ) -> int:
        """The branch, behind a question whether the field is there at all, where that decides otherwise."""
        if self.missing == "defaultChild" or field in known:
            return branch
        if self.missing == "none":
            # Every comparison with a missing value is false; so is ONNX's, except what was turned around.
            return (
                self.ensemble.branch(field, "BRANCH_LEQ", _INFINITY, branch, no) if operator == "notEqual" else branch
            )
        instead = self._leaf(node) if self.missing == "lastPrediction" else self._nothing()
        return self.ensemble.branch(field, "BRANCH_LEQ", _INFINITY, branch, instead)

    def _default(self, node: Element, children: list[Element], tests: list[Any]) -> Element | None:
        """The child that a missing value goes to. Two children, asked about one field: then it is exact."""
        found = next((each for each in children if each.get("id") == node.get("defaultChild")), None)
        fields = {test[0] for test in tests if test is not None}
        if found is None or len(children) > 2 or len(fields) > 1:
            raise refuse("Node with missingValueStrategy defaultChild that is no split in two")
        return found

    def _leaf(self, node: Element) -> int:
        if self.classes is None:
            return self.ensemble.leaf([number(node.get("score"), "Node") * self.weight])
        parts = node.findall("ScoreDistribution")
        given = [0.0] * len(self.classes)
        for each in parts:
            count = number(each.get("probability") or each.get("recordCount"), "ScoreDistribution")
            given[position(self.classes, each.get("value"), each)] = count
        total = sum(given)
        if parts and not total > 0:
            raise EngineError("A ScoreDistribution of the PMML file counts nothing.", field="file", code="pmml")
        named = None if node.get("score") is None else position(self.classes, node.get("score"), node)
        if named is None and not parts:
            raise refuse("Node of a classification without score")
        if parts and named is not None and given.index(max(given)) != named:
            raise refuse("Node whose score is not the first class of its greatest ScoreDistribution")
        if not parts:
            given, total = [float(index == named) for index in range(len(given))], 1.0
        return self.ensemble.leaf([each / total * self.weight for each in given])

    def _nothing(self) -> int:
        self.ensemble.may_be_missing = True
        return self.ensemble.leaf([float("nan")] * self.ensemble.targets)


def _test(node: Element, scope: Scope) -> tuple[Expression, str, float] | None:
    """(field, operator, value) of a node's predicate; None when it is always true."""
    if node.find("True") is not None:
        return None
    found = node.find("SimplePredicate")
    if found is None:
        inner = next((each.tag for each in node if each.tag not in {"Node", "Extension", "ScoreDistribution"}), "")
        raise refuse(f"Node with {inner or 'no predicate'}")
    operator, value = found.get("operator", ""), found.get("value")
    field = scope.field(found.get("field", ""))
    if operator not in _MODES:
        raise refuse(f"SimplePredicate with the operator {operator}")
    if field.type == "string":
        if operator not in {"equal", "notEqual"}:
            raise refuse(f"SimplePredicate with the operator {operator} of text")
        return equals(field, value or ""), "greaterThan" if operator == "equal" else "lessOrEqual", 0.5
    if isinstance(field, Call) and field.function == "is":
        return field, operator, number(value, "SimplePredicate")
    return field, operator, rounded(number(value, "SimplePredicate"), field.type)
