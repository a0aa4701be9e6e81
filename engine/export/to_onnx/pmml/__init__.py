"""PMML to ONNX in pure Python: what is not covered exactly is refused by the name of its element.

One file a model class; each draws its scores into the graph. A missing number (NaN) gives the score NaN where
PMML gives no prediction; what the label then is means nothing, because ONNX has no missing label.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from engine.evaluate.rows import Rows
from engine.export.to_onnx.pmml.expressions import refuse
from engine.export.to_onnx.pmml.graph import Graph
from engine.export.to_onnx.pmml.models import Result, draw
from engine.export.to_onnx.pmml.scope import Scope

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_OPSET, _OLDEST = 17, 13
_IR_VERSION = 8
# PMML's types and those of ONNX's inputs; JPMML takes whole numbers as doubles, and so does everybody else.
_INPUTS = {"double": 11, "float": 1, "integer": 11, "string": 8}


def convert(model: Path, rows: Rows, opset: int | None) -> bytes:
    """One input [N, 1] an active field, named and typed as the field is (whole numbers FP64); outputs `label` [N] and
    `probabilities` [N, classes], or `prediction` [N, 1], in float64.

    EngineError(code="unsupported") for what there is no way for.
    """
    from onnx import helper

    from engine.scan import pmml

    if opset is not None and opset < _OLDEST:
        raise EngineError(f"PMML becomes ONNX of operator set {_OLDEST} or newer.", field="options.opset")
    root = pmml.read(model)
    element, graph = pmml.model_of(root), Graph()
    scope = _fields(root, element, graph)
    result = draw(element, scope, graph, pmml.class_labels(root))
    # Only what a prediction needs is drawn, but rows are asked for every active field.
    inputs = [helper.make_tensor_value_info(name, _INPUTS[kind], [None, 1]) for name, kind in graph.inputs.items()]
    built = helper.make_graph(graph.nodes, "pmml", inputs, [], graph.initializers)
    _outputs(built, result, graph)
    opsets = [helper.make_opsetid("", opset or _OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(built, opset_imports=opsets, producer_name="slipway-pmml", ir_version=_IR_VERSION)
    return bytes(made.SerializeToString())


def _fields(root: Element, model: Element, graph: Graph) -> Scope:
    from engine.scan import pmml

    scope, known = Scope(), pmml.data_fields(root)
    active = pmml.active_fields(model)
    if not active or len(set(active)) != len(active):
        raise EngineError("The PMML model must read fields, each once.", field="file", code="pmml")
    for name in active:
        field = known.get(name)
        kind = "" if field is None else field.get("dataType", "")
        if field is None or kind not in _INPUTS:
            raise refuse(f"DataField '{name}' of type {kind or 'unknown'}")
        if any(each.get("property", "valid") != "valid" for each in field.iterfind("Value")):
            raise refuse(f"DataField '{name}' with missing or invalid values")
        scope.bind(name, graph.input(name, kind))
    scope.define(root.iterfind("TransformationDictionary/DerivedField"))
    return scope


def _outputs(built: Any, result: Result, graph: Graph) -> None:
    """Names the outputs; names of inputs are taken."""
    import numpy as np
    from onnx import helper, numpy_helper

    def output(name: str, operator: str, inputs: list[str], kind: int, shape: list[Any], **attributes: Any) -> None:
        name = name if name not in graph.inputs else f"{name}_"
        built.node.append(helper.make_node(operator, inputs, [name], **attributes))
        built.output.append(helper.make_tensor_value_info(name, kind, shape))

    if result.labels is None:
        output("prediction", "Identity", [result.scores], 11, [None, 1])
        return
    texts = any(not isinstance(label, int) for label in result.labels)
    names = np.array([str(each) for each in result.labels], object) if texts else np.array(result.labels, np.int64)
    built.initializer.append(numpy_helper.from_array(names, "class_labels"))
    built.node.append(helper.make_node("ArgMax", [result.ranks or result.scores], ["best_class"], axis=1, keepdims=0))
    output("label", "Gather", ["class_labels", "best_class"], 8 if texts else 7, [None], axis=0)
    output("probabilities", "Identity", [result.scores], 11, [None, len(result.labels)])
