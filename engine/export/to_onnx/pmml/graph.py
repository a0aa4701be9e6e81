"""The ONNX graph being built. Numbers are float64 matrices [N, columns]; columns made alike are made at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.export.to_onnx.pmml.expressions import Call, Constant, Expression, Input, Made, refuse

if TYPE_CHECKING:
    import numpy as np

_OPERATORS = {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div", "pow": "Pow", "exp": "Exp", "ln": "Log"}
_OPERATORS |= {"sqrt": "Sqrt", "abs": "Abs", "floor": "Floor", "ceil": "Ceil"}
_FLOAT, _DOUBLE = 1, 11  # element types of TensorProto


class Graph:
    """Nodes and constants in order; `columns` draws expressions."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._drawn: dict[tuple[Expression, ...], str] = {}
        self.inputs: dict[str, str] = {}

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Name of the one output of a new node."""
        from onnx import helper

        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, values: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def input(self, name: str, kind: str) -> Input:
        """A field of the rows becomes an input [N, 1] of its name."""
        self.inputs[name] = kind
        return Input(name, kind)

    def columns(self, wanted: tuple[Expression, ...]) -> str:
        """float64 [N, len(wanted)] with one column an expression."""
        if wanted not in self._drawn:
            self._drawn[wanted] = self._draw(wanted)
        return self._drawn[wanted]

    def pick(self, tensor: str, indices: list[int], width: int) -> str:
        """Those columns of a tensor that is `width` wide."""
        import numpy as np

        if indices == list(range(width)):
            return tensor
        return self.add("Gather", tensor, self.constant(np.array(indices, dtype=np.int64)), axis=1)

    def joined(self, tensors: list[str]) -> str:
        return tensors[0] if len(tensors) == 1 else self.add("Concat", *tensors, axis=1)

    def _draw(self, wanted: tuple[Expression, ...]) -> str:
        groups: dict[Any, list[int]] = {}
        for index, each in enumerate(wanted):
            groups.setdefault(_shape(each), []).append(index)
        parts = [self._alike([wanted[i] for i in group]) for group in groups.values()]
        order = [index for group in groups.values() for index in group]
        back = sorted(range(len(order)), key=order.__getitem__)
        return self.pick(self.joined(parts), back, len(order))

    def _alike(self, wanted: list[Expression]) -> str:
        """Expressions of one shape: one node for all of them."""
        import numpy as np

        first = wanted[0]
        if isinstance(first, Input):
            parts = self.joined([each.name for each in wanted if isinstance(each, Input)])
            return self.add("Cast", parts, to=_DOUBLE) if first.type == "float" else parts
        if isinstance(first, Made):
            made = [each for each in wanted if isinstance(each, Made)]
            return self.pick(first.tensor, [each.index for each in made], first.width)
        if isinstance(first, Constant):
            return self.constant(np.array([[each.value for each in wanted if isinstance(each, Constant)]]))
        calls = [each for each in wanted if isinstance(each, Call)]
        if first.function == "is" and first.arguments[0].type == "string":
            return self._hot(calls)
        arguments = [
            self.columns(tuple(call.arguments[position] for call in calls)) for position in range(len(first.arguments))
        ]
        if first.function == "float":
            return self.add("Cast", self.add("Cast", arguments[0], to=_FLOAT), to=_DOUBLE)
        if first.function in {"is", "replace"}:
            return self._with_setting(first.function, arguments[0], np.array([[call.setting for call in calls]], float))
        return self.add(_OPERATORS[first.function], *arguments)

    def _with_setting(self, function: str, values: str, settings: np.ndarray) -> str:
        if function == "is":
            equal = self.add("Cast", self.add("Equal", values, self.constant(settings)), to=_DOUBLE)
            # Missing stays missing: not-a-number equals nothing, and 0 * x keeps it.
            return self.add("Add", equal, self.add("Mul", values, self.constant(settings * 0)))
        return self.add("Where", self.add("IsNaN", values), self.constant(settings), values)

    def _hot(self, calls: list[Call]) -> str:
        """1 where a text is that one: a row of the unit matrix for each text that is asked for."""
        import numpy as np

        source = calls[0].arguments[0]
        if not isinstance(source, Input):
            raise refuse("text that is not a field of the data")
        values = list(dict.fromkeys(str(call.setting) for call in calls))
        index = self.add(
            "LabelEncoder", source.name, domain="ai.onnx.ml",
            keys_strings=values, values_int64s=list(range(len(values))), default_int64=len(values),
        )  # fmt: skip
        unit = np.eye(len(values) + 1, len(values))[:, [values.index(str(call.setting)) for call in calls]]
        rows = self.add("Gather", self.constant(unit), index, axis=0)
        return self.add("Squeeze", rows, self.constant(np.array([1], dtype=np.int64)))


def _shape(each: Expression) -> Any:
    """What must be equal for two expressions to be drawn by the same nodes."""
    if isinstance(each, Input):
        return ("input", each.type)
    if isinstance(each, Made):
        return ("made", each.tensor)
    if isinstance(each, Constant):
        return "constant"
    if each.function == "is" and each.arguments[0].type == "string":
        return ("is", each.arguments[0])
    return (each.function, *(_shape(argument) for argument in each.arguments))
