"""Which name means what: fields of the data, derived fields, outputs of earlier models of a chain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.errors import EngineError
from engine.export.to_onnx.pmml.expressions import Call, Expression, derived, number, refuse

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


class Scope:
    """Names of one model; what it does not know, the model around it may."""

    def __init__(self, outer: Scope | None = None) -> None:
        self.outer = outer
        self._known: dict[str, Expression] = {}
        self._unread: dict[str, Element] = {}
        self._reading: set[str] = set()

    def bind(self, name: str, made: Expression) -> None:
        self._known[name] = made

    def define(self, fields: Iterable[Element]) -> None:
        """Derived fields; they are read when somebody asks, so that unused ones may be of any kind."""
        self._unread |= {each.get("name", ""): each for each in fields}

    def field(self, name: str) -> Expression:
        """EngineError for a name nobody has, or one that is made of itself."""
        if name in self._known:
            return self._known[name]
        if name in self._unread and name not in self._reading:
            self._reading.add(name)
            self._known[name] = derived(self._unread[name], self)
            return self._known[name]
        if self.outer is None or name in self._reading:
            raise EngineError(f"The PMML file refers to '{name[:60]}', which it does not define.", field="file")
        return self.outer.field(name)

    def inside(self, model: Element) -> Scope:
        """The scope of a model: what its MiningSchema replaces, what its LocalTransformations define."""
        inner = Scope(self)
        for each in model.iterfind("MiningSchema/MiningField"):
            _check_treatment(each)
            name, given = each.get("name", ""), each.get("missingValueReplacement")
            if given is not None and each.get("usageType", "active") == "active":
                field = self.field(name)
                if field.type == "string":
                    raise refuse("MiningField with missingValueReplacement of text")
                inner.bind(name, Call("replace", (field,), field.type, number(given, "MiningField")))
        inner.define(model.iterfind("LocalTransformations/DerivedField"))
        return inner


def _check_treatment(field: Element) -> None:
    if field.get("outliers", "asIs") != "asIs":
        raise refuse("MiningField with outliers treated")
    if field.get("missingValueTreatment") == "returnInvalid":
        raise refuse("MiningField with missingValueTreatment returnInvalid")
    if field.get("invalidValueTreatment", "returnInvalid") not in {"returnInvalid", "asIs"}:
        raise refuse(f"MiningField with invalidValueTreatment {field.get('invalidValueTreatment')}")
