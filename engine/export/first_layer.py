"""Names the layer of a network after which its ONNX graph says something else.

Both converters leave traces of the layers in the graph: torch.export's writes the path of the module beside each node,
tf2onnx keeps the names of TensorFlow's operations. A layer whose own output was merged into another's is passed over.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from engine.evaluate import parity
from engine.evaluate.outputs import Outputs, feeds
from engine.evaluate.rows import Rows

_ROWS = 64  # of all layers at once in memory
_SCOPES = "pkg.torch.onnx.name_scopes"


def first_layer(framework: str, model: Any, rows: Rows, artifact: Path, tolerance: float) -> str | None:
    """The first layer whose output for `rows` differs by more than `tolerance` (as in `parity.compare`) in the ONNX
    file `artifact`; None when no known one does. model: as its source loads it; frameworks: pytorch, keras, tensorflow.

    Raises nothing: it explains a failure and must not become one."""
    try:
        import onnx

        graph = onnx.load_from_string(artifact.read_bytes())
        rows = rows.head(_ROWS)
        if framework == "pytorch":
            wanted, tensors = _modules(model, rows), _scoped(graph)
        elif model.is_keras:
            wanted, tensors = _layers(model, rows), _operations(model, graph)
        else:
            return None
        known = {name: tensors[name] for name in wanted if name in tensors}
        found = _values(graph, set(known.values()), rows)
        return next((name for name, tensor in known.items() if _differs(wanted[name], found[tensor], tolerance)), None)
    except Exception as error:
        # The model, the graph and both of their libraries are foreign.
        print(f"the layers cannot be compared: {type(error).__name__}")
        return None


def _modules(model: Any, rows: Rows) -> dict[str, Any]:
    """{path: output} of the innermost modules, in the order in which they are done; those asked once only."""
    import torch

    from engine.export.sources.pytorch import inputs_of, tensors

    module = torch.export.unflatten(model.program) if model.kind == "program" else model.module
    found: dict[str, Any] = {}
    often: set[str] = set()

    def keep(name: str) -> Any:
        def hook(module: Any, given: Any, made: Any) -> None:
            often.update({name} & found.keys())
            found[name] = tensors(made)[0].numpy()

        return hook

    inner = [(name, each) for name, each in module.named_modules() if name and not list(each.children())]
    hooks = [each.register_forward_hook(keep(name)) for name, each in inner]
    try:
        with torch.inference_mode():
            module(*(torch.from_numpy(each) for each in inputs_of(model, rows).values()))
    finally:
        for each in hooks:
            each.remove()
    return {name: value for name, value in found.items() if name not in often}


def _scoped(graph: Any) -> dict[str, str]:
    """{path of a module: the tensor that its last node makes}."""
    found = {}
    for node in graph.graph.node:
        for each in node.metadata_props:
            if each.key == _SCOPES and len(node.output) == 1:
                found[".".join(ast.literal_eval(each.value)[-2:-1])] = node.output[0]
    return found


def _layers(model: Any, rows: Rows) -> dict[str, Any]:
    """{name: output} of the layers of a Keras model that have one tensor, in its order."""
    import keras

    owner = model.owner._functional if isinstance(model.owner, keras.Sequential) else model.owner
    ordered = [node for depth in sorted(owner._nodes_by_depth, reverse=True) for node in owner._nodes_by_depth[depth]]
    nodes = [each for each in ordered if isinstance(each.operation, keras.layers.Layer) and not each.is_input]
    names = [each.operation.name for each in nodes]
    # A layer that is used twice has no output of its own.
    outs = {
        name: node.output_tensors[0]
        for name, node in zip(names, nodes, strict=True)
        if names.count(name) == 1 and len(node.output_tensors) == 1
    }
    given = list(feeds(model.signature, rows).values())
    made = keras.Model(owner.inputs, list(outs.values()))(given, training=False)
    return dict(zip(outs, (each.numpy() for each in keras.tree.flatten(made)), strict=True))


def _operations(model: Any, graph: Any) -> dict[str, str]:
    """{layer: the tensor that its last operation makes}, where tf2onnx left that operation in the graph."""
    traced = model.traced().get_concrete_function().graph
    # Both were traced alone, so that TensorFlow numbered the scopes of both alike.
    scopes: dict[str, list[str]] = {}
    for operation in traced.get_operations():
        parts = operation.name.split("/")
        if len(parts) > 2:
            scopes.setdefault(f"{parts[0]}/{parts[1]}/", []).append(operation.name)
    made = [output for node in graph.graph.node for output in node.output]
    found = {}
    left = [layer.name for layer in model.owner.layers]
    for scope, names in scopes.items():
        layer = next((each for each in left if re.fullmatch(rf"[^/]+/{re.escape(each)}(_\d+)?/", scope)), None)
        if layer is None:
            continue
        left.remove(layer)
        inside = [name for name in made if name.startswith(scope)]
        if f"{names[-1]}:0" in inside:
            found[layer] = f"{names[-1]}:0"
        elif names[-1].endswith("/BiasAdd") and inside:
            found[layer] = inside[-1]  # the bias went into the product, or was zero
    return found


def _values(graph: Any, names: set[str], rows: Rows) -> dict[str, Any]:
    """{tensor: array} of tensors inside the graph, which runs as it is written, not optimized."""
    import onnx
    import onnxruntime

    from engine.formats import signature

    described = signature.of_onnx(graph)
    given = feeds(described, rows)
    outer = {each.name for each in graph.graph.output}
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sorted(names - outer))
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    order = sorted(names)
    return dict(zip(order, session.run(order, given), strict=True))


def _differs(wanted: Any, got: Any, tolerance: float) -> bool:
    """Whether two outputs of a layer are not the same; False where their shapes do not let one say.

    tf2onnx keeps pictures with their channels first, Keras last."""
    import numpy as np

    forms = [np.moveaxis(got, 1, -1)] if got.ndim > 2 else []
    fit = [each for each in [got, *forms] if each.shape == wanted.shape]
    return bool(fit) and not any(_same(wanted, each, tolerance) for each in fit)


def _same(wanted: Any, got: Any, tolerance: float) -> bool:
    a, b = (Outputs(None, each.reshape(len(each), -1).astype("float64")) for each in (wanted, got))
    return bool(parity.compare(a, b, tolerance)["passed"])
