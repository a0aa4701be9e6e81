"""NeuralNetwork: layers of weighted sums and activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from engine.export.to_onnx.pmml.expressions import derived, number, refuse
from engine.export.to_onnx.pmml.graph import Graph
from engine.export.to_onnx.pmml.models import Result, position
from engine.export.to_onnx.pmml.scope import Scope

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_ACTIVATIONS = {"tanh": "Tanh", "logistic": "Sigmoid", "rectifier": "Relu", "identity": None}
_Place = tuple[str, int]  # tensor and column


def draw(model: Element, scope: Scope, graph: Graph, labels: list[Any] | None) -> Result:
    """Outputs of a classification are taken as they are, as PMML says; a regression has one, of the target itself."""
    inputs = model.findall("NeuralInputs/NeuralInput")
    features = tuple(_input(each, scope) for each in inputs)
    tensor = graph.columns(features)
    width = {tensor: len(features)}
    places: dict[str, _Place] = {each.get("id", ""): (tensor, i) for i, each in enumerate(inputs)}
    layers = model.findall("NeuralLayer")
    for layer in layers:
        _layer(layer, model, places, width, graph)
    outputs = model.findall("NeuralOutputs/NeuralOutput")
    ends = [_place(places, each.get("outputNeuron")) for each in outputs]
    if model.get("functionName") == "regression":
        if len(outputs) != 1 or outputs[0].find("DerivedField/FieldRef") is None:
            raise refuse("NeuralOutputs of a regression that are not one FieldRef")
        return Result(_gathered(ends, width, graph), None, scope)
    values = [each.find("DerivedField/NormDiscrete") for each in outputs]
    names = [each.get("value", "") for each in values if each is not None]
    if len(names) != len(outputs):
        raise refuse("NeuralOutputs of a classification that are not NormDiscrete")
    classes = list(names) if labels is None else labels
    order = [position(classes, name, each) for name, each in zip(names, outputs, strict=True)]
    if sorted(order) != list(range(len(classes))):
        raise refuse("NeuralNetwork without exactly one NeuralOutput a class")
    return Result(_gathered([ends[order.index(i)] for i in range(len(order))], width, graph), classes, scope)


def _input(each: Element, scope: Scope) -> Any:
    field = each.find("DerivedField")
    made = None if field is None else derived(field, scope)
    if made is None or made.type == "string":
        raise refuse("NeuralInput that is no number")
    return made


def _place(places: dict[str, _Place], name: str | None) -> _Place:
    if name not in places:
        raise EngineError(f"The PMML network has no neuron '{str(name)[:40]}' where it is used.", field="file")
    return places[name]


def _layer(layer: Element, model: Element, places: dict[str, _Place], width: dict[str, int], graph: Graph) -> None:
    """Adds activation(source @ weights + biases); sources may lie in any earlier layer."""
    import numpy as np

    neurons = layer.findall("Neuron")
    cons = [(row, _place(places, con.get("from")), con) for row, each in enumerate(neurons) for con in each.iter("Con")]
    sources = list(dict.fromkeys(place[0] for _, place, _ in cons))
    if not sources:
        raise refuse("NeuralLayer without connections")
    starts = dict(zip(sources, np.cumsum([0, *(width[each] for each in sources)]).tolist(), strict=False))
    weights = np.zeros((sum(width[each] for each in sources), len(neurons)))
    for row, (tensor, column), con in cons:
        weights[starts[tensor] + column, row] += number(con.get("weight"), "Con")
    biases = np.array([[number(each.get("bias", "0"), "Neuron") for each in neurons]])
    made = graph.add("MatMul", graph.joined(sources), graph.constant(weights))
    made = graph.add("Add", made, graph.constant(biases))
    activation = layer.get("activationFunction", model.get("activationFunction", ""))
    if activation not in _ACTIVATIONS:
        raise refuse(f"NeuralLayer with activationFunction {activation}")
    operator = _ACTIVATIONS[activation]
    made = graph.add(operator, made) if operator else made
    normalization = layer.get("normalizationMethod", model.get("normalizationMethod", "none"))
    if normalization not in {"none", "softmax"}:
        raise refuse(f"NeuralLayer with normalizationMethod {normalization}")
    made = graph.add("Softmax", made, axis=1) if normalization == "softmax" else made
    width[made] = len(neurons)
    places |= {each.get("id", ""): (made, row) for row, each in enumerate(neurons)}


def _gathered(ends: list[_Place], width: dict[str, int], graph: Graph) -> str:
    sources = list(dict.fromkeys(tensor for tensor, _ in ends))
    parts = [graph.pick(each, [column for tensor, column in ends if tensor == each], width[each]) for each in sources]
    order = [index for each in sources for index, (tensor, _) in enumerate(ends) if tensor == each]
    return graph.pick(graph.joined(parts), [order.index(i) for i in range(len(order))], len(order))
