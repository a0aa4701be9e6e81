"""PMML expressions as plain values: what a field is made of, down to the inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.errors import EngineError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from engine.export.to_onnx.pmml.scope import Scope

_ARITHMETIC = {"+", "-", "*", "/"}
_FUNCTIONS = {"exp", "ln", "sqrt", "abs", "floor", "ceil", "pow"}
_NUMBERS = {"double", "float", "integer"}
_MOST_CALLS = 500


@dataclass(frozen=True)
class Input:
    """A field of the rows. type: double, float, integer or string."""

    name: str
    type: str


@dataclass(frozen=True)
class Made:
    """Column `index` of a tensor that is already in the graph, `width` columns wide."""

    tensor: str
    index: int
    width: int
    type: str = "double"


@dataclass(frozen=True)
class Constant:
    value: float
    type: str


@dataclass(frozen=True)
class Call:
    """function: of _ARITHMETIC and _FUNCTIONS, "float" (rounded to 32 bits), "is" (1 where the argument equals
    `setting`, else 0) or "replace" (`setting` where the argument is missing)."""

    function: str
    arguments: tuple[Expression, ...]
    type: str
    setting: str | float | None = None
    size: int = field(init=False, compare=False, default=1)

    def __post_init__(self) -> None:
        # Fields made of fields made of fields: each step may double what is drawn.
        size = 1 + sum(each.size if isinstance(each, Call) else 1 for each in self.arguments)
        if size > _MOST_CALLS:
            raise refuse(f"DerivedField of more than {_MOST_CALLS} steps")
        object.__setattr__(self, "size", size)


Expression = Input | Made | Constant | Call


def refuse(what: str) -> EngineError:
    """what: the element and what of it there is no way for."""
    return EngineError(f"There is no way to ONNX for {what[:200]}.", field="exporter", code="unsupported")


def number(text: str | None, where: str) -> float:
    """EngineError when `text` is no number."""
    try:
        return float(text if text is not None else "")
    except ValueError as error:
        raise EngineError(f"{where} has '{(text or '')[:40]}' where a number must be.", field="file") from error


def rounded(value: float, kind: str) -> float:
    """A constant as it is compared with a field of that type: floats have 32 bits."""
    import numpy as np

    return float(np.float32(value)) if kind == "float" else value


def derived(element: Element, scope: Scope) -> Expression:
    """What a DerivedField (or whatever holds one expression) is made of, in its declared type."""
    inner = [each for each in element if each.tag not in {"Extension", "Value"}]
    if len(inner) != 1 or inner[0].tag == "Constant":
        raise refuse(f"{element.tag} without one expression of fields")
    return cast(expression(inner[0], scope), element.get("dataType"), element)


def cast(made: Expression, kind: str | None, element: Element) -> Expression:
    if kind is None or kind == made.type or (kind == "double" and made.type in _NUMBERS):
        return made
    if kind == "float" and made.type in _NUMBERS:
        return Call("float", (made,), "float")
    raise refuse(f"{element.tag} of type {kind} made of {made.type} values")


def expression(element: Element, scope: Scope) -> Expression:
    """EngineError naming the element there is no way for."""
    for attribute in ("mapMissingTo", "defaultValue"):
        if element.get(attribute) is not None:
            raise refuse(f"{element.tag} with {attribute}")
    if element.tag == "FieldRef":
        return scope.field(element.get("field", ""))
    if element.tag == "Constant":
        return _constant(element)
    if element.tag == "Apply":
        return _apply(element, scope)
    if element.tag == "NormContinuous":
        return _norm_continuous(element, scope)
    if element.tag == "NormDiscrete":
        return equals(scope.field(element.get("field", "")), element.get("value", ""))
    raise refuse(element.tag)


def equals(field: Expression, value: str) -> Expression:
    """1 where the field has the value, 0 elsewhere."""
    if field.type == "string":
        return Call("is", (field,), "double", value)
    return Call("is", (field,), "double", rounded(number(value, "A comparison"), field.type))


def _constant(element: Element) -> Constant:
    text = (element.text or "").strip()
    if element.get("missing") == "true" or element.get("dataType", "double") not in _NUMBERS:
        raise refuse(f"Constant of type {element.get('dataType')}")
    whole = text.lstrip("+-").isdigit()
    kind = element.get("dataType") or ("integer" if whole else "double")
    return Constant(rounded(number(text, "Constant"), kind), kind)


def _apply(element: Element, scope: Scope) -> Expression:
    name = element.get("function", "")
    arguments = tuple(expression(each, scope) for each in element if each.tag != "Extension")
    wanted = 2 if name in _ARITHMETIC or name == "pow" else 1
    if name not in _ARITHMETIC | _FUNCTIONS or len(arguments) != wanted:
        raise refuse(f"Apply of the function {name} to {len(arguments)} values")
    if element.get("invalidValueTreatment", "returnInvalid") != "returnInvalid":
        raise refuse("Apply with invalidValueTreatment")
    types = {each.type for each in arguments}
    if "string" in types:
        raise refuse(f"Apply of the function {name} to text")
    if types == {"integer"} and name in {"/", "pow"}:
        raise refuse(f"Apply of the function {name} to whole numbers")
    if name in {"floor", "ceil"} or types == {"integer"}:
        return Call(name, arguments, "integer" if name in _ARITHMETIC | {"floor", "ceil", "abs"} else "double")
    if "double" in types or (name not in _ARITHMETIC and name != "abs"):
        return Call(name, arguments, "double")
    # The exact result of one operation on 32-bit numbers, rounded once, is what 32-bit arithmetic gives.
    return Call("float", (Call(name, arguments, "double"),), "float")


def _norm_continuous(element: Element, scope: Scope) -> Expression:
    """norm1 + (x - orig1) / (orig2 - orig1) * (norm2 - norm1), beyond both ends too."""
    knots = [
        (number(each.get("orig"), "LinearNorm"), number(each.get("norm"), "LinearNorm"))
        for each in element.iterfind("LinearNorm")
    ]
    if len(knots) != 2 or element.get("outliers", "asIs") != "asIs" or knots[0][0] == knots[1][0]:
        raise refuse("NormContinuous of more than one piece, or with outliers treated")
    (x1, y1), (x2, y2) = knots
    field = scope.field(element.get("field", ""))
    if field.type == "string":
        raise refuse("NormContinuous of text")
    moved = Call("-", (field, Constant(x1, "double")), "double")
    part = Call("/", (moved, Constant(x2 - x1, "double")), "double")
    scaled = Call("*", (part, Constant(y2 - y1, "double")), "double")
    return Call("+", (scaled, Constant(y1, "double")), "double")
