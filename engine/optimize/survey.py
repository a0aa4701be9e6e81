"""A look at a model's graph: what there is to optimize."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any


def survey(model: Path) -> dict[str, Any]:
    """The fields of `lab.trial.Survey` that the file alone tells; with the subgraphs of control flow. A layer is a
    node with weights of its own: {"name", "operator", "parameters", "bytes"}, largest first."""
    import math

    from engine.optimize.graph.blocks import Blocks
    from engine.scan import onnx_structure

    proto = onnx_structure.parse(model.read_bytes())
    operators: Counter[str] = Counter()
    by_operator: Counter[str] = Counter()
    layers: list[dict[str, Any]] = []
    parameters = size = 0
    for graph, _ in onnx_structure.graphs(proto):
        weights = {
            each.name: (math.prod(each.dims), -(-math.prod(each.dims) * _BITS.get(each.data_type, 32) // 8))
            for each in graph.initializer
        }
        parameters += sum(count for count, _ in weights.values())
        size += sum(width for _, width in weights.values())
        for node in graph.node:
            operators[node.op_type] += 1
            own = [weights[name] for name in node.input if name in weights]
            held = sum(width for _, width in own)
            by_operator[node.op_type] += held
            if held:
                name = node.name or (node.output[0] if node.output else node.op_type)
                count = sum(number for number, _ in own)
                layers.append({"name": name, "operator": node.op_type, "parameters": count, "bytes": held})
    layers.sort(key=lambda layer: -int(layer["bytes"]))
    control_flow = bool({"If", "Loop", "Scan"} & operators.keys())
    opset = next((entry.version for entry in proto.opset_import if entry.domain == ""), 0)
    return {
        "parameters": parameters,
        "weight_bytes": size,
        "operators": dict(operators),
        "bytes_by_operator": {name: width for name, width in by_operator.items() if width},
        "layers": layers[:500],
        "control_flow": control_flow,
        "blocks": 0 if control_flow else len(Blocks(_skeleton(proto)).all),
        "opset": opset,
    }


def _skeleton(proto: Any) -> Any:
    """The model without the numbers of its large weights, whose shapes are enough to look at its graph."""
    from onnx import TensorProto

    light = type(proto)(ir_version=proto.ir_version, opset_import=proto.opset_import)
    for name in ("node", "input", "output", "value_info"):
        getattr(light.graph, name).extend(getattr(proto.graph, name))
    light.graph.name = proto.graph.name
    for each in proto.graph.initializer:
        small = each.ByteSize() <= _SMALL
        light.graph.initializer.append(
            each if small else TensorProto(name=each.name, dims=each.dims, data_type=each.data_type)
        )
    return light


# Bytes of a stored tensor that shape inference may read numbers from.
_SMALL = 4096

# Bits of an element by ONNX's data type: 8, 16, 64 and 4; the rest have 32.
_BITS = {2: 8, 3: 8, 9: 8, 4: 16, 5: 16, 10: 16, 16: 16, 7: 64, 11: 64, 13: 64, 21: 4, 22: 4}
