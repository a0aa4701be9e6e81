"""The stored weights of a graph, and how each operator lays them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.errors import EngineError

# The inputs that are weights, with the axis of their output channels.
_INPUTS = {
    "Conv": {1: 0},
    "ConvTranspose": {1: 1},
    "Gemm": {1: 1},
    "MatMul": {1: -1, 0: 0},
    "LSTM": {1: 1, 2: 1},
    "GRU": {1: 1, 2: 1},
    "RNN": {1: 1, 2: 1},
    "Gather": {0: 0},
}
LEAST_ELEMENTS = 256  # below, a codebook and its nodes are larger than what they save


@dataclass(frozen=True, slots=True)
class Weight:
    """tensor: the initializer's TensorProto. axis: where its output channels are. node: the first that reads it."""

    tensor: Any
    axis: int
    node: Any

    @property
    def name(self) -> str:
        return str(self.tensor.name)

    def array(self) -> Any:
        """float32. EngineError(code="weights") for NaN or infinity, which no code stands for."""
        import numpy as np
        from onnx import numpy_helper

        values = numpy_helper.to_array(self.tensor)
        if not np.isfinite(values).all():
            raise EngineError(f"The weights '{self.name[:60]}' are not finite.", field="optimizer", code="weights")
        return values

    def rows(self) -> Any:
        """The array as (output channels, the rest)."""
        import numpy as np

        values = np.moveaxis(self.array(), self.axis, 0)
        return values.reshape(len(values), -1)


def weights(model: Any, least: int = LEAST_ELEMENTS) -> list[Weight]:
    """float32 initializers of two or more dimensions and `least` elements that operators of the main graph use as
    weights; each once. What subgraphs alone read is left as it is."""
    import math

    from onnx import TensorProto

    stored = {each.name: each for each in model.graph.initializer}
    found: dict[str, Weight] = {}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        for index, axis in _INPUTS.get(node.op_type, {}).items():
            name = node.input[index] if index < len(node.input) else ""
            tensor = stored.get(name)
            if tensor is None or name in found or tensor.data_type != TensorProto.FLOAT:
                continue
            if len(tensor.dims) >= 2 and math.prod(tensor.dims) >= least:
                found[name] = Weight(tensor, _axis(node, axis) % len(tensor.dims), node)
    return list(found.values())


def attribute(node: Any, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    from onnx import helper

    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


def _axis(node: Any, axis: int) -> int:
    return 0 if node.op_type == "Gemm" and attribute(node, "transB", 0) else axis
