"""One ONNX graph as a differentiable function of its inputs and its stored weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.optimize.torch_graph import activations, arithmetic, convolutions, normalizations, shapes, table
from engine.optimize.torch_graph.stored import learnable, stored, unshare

# The files of operators enter themselves into the table.
ROOMS = (activations, arithmetic, convolutions, normalizations, shapes)

Before = Callable[[Any, list[Any]], list[Any]]


class TorchGraph:
    """The nodes of `model` that the tensors `wanted` need, run one by one in torch.

    weights: {name: tensor} that learn; state: the other stored tensors, with the running statistics that
    BatchNormalization updates while training. before: changes a node's inputs, for fake quantization.
    EngineError(code="unsupported") naming the first operator that has no function here.
    """

    def __init__(self, model: Any, wanted: Sequence[str]) -> None:
        import torch

        self.model, self.wanted = model, list(wanted)
        self.before: Before | None = None
        unshare(model.graph)
        self.tensors = stored(model.graph)
        nodes = _needed(model.graph, self.wanted, set(self.tensors))
        used = {name for node in nodes for name in node.input} | set(self.wanted)
        learned = learnable(nodes, self.tensors)
        self.weights: dict[str, Any] = {}
        self.state: dict[str, Any] = {}
        for name in sorted(used & set(self.tensors)):
            tensor = torch.from_numpy(_array(self.tensors[name], name))
            if name in learned:
                self.weights[name] = tensor.requires_grad_()
            else:
                self.state[name] = tensor
        versions = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
        self._steps = [
            (node, table.find(node.domain, node.op_type), _call(torch, node, versions.get(node.domain or "ai.onnx", 1)))
            for node in nodes
        ]
        self._last = {name: number for number, (node, _, _) in enumerate(self._steps) for name in node.input}

    def run(self, feeds: dict[str, Any], *, training: bool = False) -> list[Any]:
        """The wanted tensors for {input: tensor}; training: normalizations go by the batch."""
        values = {**self.state, **self.weights, **feeds}
        for number, (node, function, call) in enumerate(self._steps):
            call.training = training
            inputs = [values[name] if name else None for name in node.input]
            if self.before is not None:
                inputs = self.before(node, inputs)
            try:
                result = function(call, *inputs)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                raise EngineError(
                    f"The {node.op_type} '{(node.name or node.output[0])[:60]}' failed: {str(error)[:200]}",
                    field="file",
                    code="shape",
                ) from error
            results = result if isinstance(result, (tuple, list)) else (result,)
            values.update(zip(node.output, results, strict=False))
            for name in node.input:
                if self._last[name] == number and name not in self.wanted:
                    values.pop(name, None)
        return [values[name] for name in self.wanted]

    def snapshot(self) -> dict[str, Any]:
        """Copies of all that training changes."""
        return {name: tensor.detach().clone() for name, tensor in {**self.weights, **self.state}.items()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        for name, tensor in {**self.weights, **self.state}.items():
            tensor.detach().copy_(snapshot[name])

    def save(self, target: Path) -> None:
        """The same graph with the weights and running statistics as they are now."""
        import numpy as np
        import onnx

        for name, tensor in {**self.weights, **self.state}.items():
            if tensor.is_floating_point():
                entry = self.tensors[name]
                own = np.ascontiguousarray(tensor.detach().numpy())
                entry.CopyFrom(onnx.numpy_helper.from_array(own, entry.name))
        onnx.save(self.model, str(target))


def _needed(graph: Any, wanted: list[str], known: set[str]) -> list[Any]:
    """Nodes that lead to `wanted`, in the order of the graph; Constants are known already."""
    asked, nodes = set(wanted), []
    for node in reversed(graph.node):
        if asked & set(node.output) and not known & set(node.output):
            nodes.append(node)
            asked.update(node.input)
    return nodes[::-1]


def _array(tensor: Any, name: str) -> Any:
    import numpy as np
    import onnx

    array = onnx.numpy_helper.to_array(tensor)
    if array.dtype.kind not in "fiub" or (array.dtype.itemsize < 4 and array.dtype.kind == "f"):
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        raise table.unsupported(f"'{name[:60]}' is of type {kind}, which cannot be trained; tune before it is changed.")
    return np.array(array)


def _call(torch: Any, node: Any, opset: int) -> table.Call:
    import onnx

    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    attributes = {name: list(v) if isinstance(v, Sequence) and not isinstance(v, (bytes, str)) else v
                  for name, v in attributes.items()}  # fmt: skip
    return table.Call(torch, torch.nn.functional, attributes, Counter(bool(n) for n in node.output)[True], opset)
