"""Opens an ONNX file for rewriting, and writes it so that the check of variants takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import EngineError

_CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}


def open_model(path: Path, least_opset: int = 7) -> Any:
    """The ModelProto of `path` at opset `least_opset` or later, every node named, its weights constants.

    Weights of Constant nodes become initializers. An initializer that is also an input could be fed by a caller; here
    it is a constant, or nothing could be decoded or fused ahead of time. EngineError(code="opset") when ONNX cannot
    convert the model.
    """
    from engine.scan import onnx_structure

    model = onnx_structure.parse(path.read_bytes())
    if opset(model) < least_opset:
        model = _upgraded(model, least_opset)
    graph = model.graph
    _lift_constants(graph)
    stored = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in stored]
    del graph.input[:]
    graph.input.extend(inputs)
    # Initializers that are no inputs exist from IR version 4.
    model.ir_version = max(model.ir_version, 4)
    _name_nodes(graph)
    return model


def opset(model: Any) -> int:
    """The version of the standard operators; 1 when the model declares none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def save(model: Any, target: Path) -> None:
    """Writes the model without stored tensors and operator domains that nothing uses."""
    import onnx

    from engine.scan.onnx_structure import graphs

    used = {""}
    read = {each.name for each in model.graph.output}
    for graph, _ in graphs(model):
        used.update(node.domain for node in graph.node)
        read.update(name for node in graph.node for name in node.input)
        if graph.DESCRIPTOR.name == "GraphProto":
            read.update(each.name for each in graph.output)
    kept = [each for each in model.graph.initializer if each.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    domains = [entry for entry in model.opset_import if entry.domain in used or entry.domain == "ai.onnx"]
    del model.opset_import[:]
    model.opset_import.extend(domains)
    onnx.save(model, str(target))


def put_in_order(graph: Any) -> None:
    """Sorts the nodes so that each comes after what it reads (depth first, otherwise in their old order)."""
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    ordered: list[Any] = []
    done: set[int] = set()
    for first in range(len(graph.node)):
        todo = [first]
        while todo:
            index = todo[-1]
            waits = [producer[name] for name in _reads(graph.node[index]) if name in producer]
            waits = [each for each in waits if each not in done and each not in todo]
            if index not in done and waits:
                todo += waits
                continue
            todo.pop()
            if index not in done:
                done.add(index)
                ordered.append(graph.node[index])
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def _reads(node: Any) -> list[str]:
    """What a node and the graphs inside it read."""
    names = list(node.input)
    for attribute in node.attribute:
        for body in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            for each in body.node:
                names += _reads(each)
            names += [each.name for each in body.output]
    return names


def use_domain(model: Any, domain: str, version: int = 1) -> None:
    """Declares an operator domain once."""
    if all(entry.domain != domain for entry in model.opset_import):
        model.opset_import.add(domain=domain, version=version)


def refuse_control_flow(model: Any, method: str) -> None:
    """EngineError(code="control-flow") for If, Loop and Scan: what flows inside them is not calibrated."""
    found = sorted({node.op_type for node in model.graph.node if node.op_type in _CONTROL_FLOW})
    if found:
        raise EngineError(
            f"{method} does not take models with {', '.join(found)}: the values inside cannot be measured. "
            "Methods that change stored weights alone do.",
            field="optimizer",
            code="control-flow",
        )


def no_gain(what: str) -> EngineError:
    return EngineError(f"This model has {what}.", field="optimizer", code="no-gain")


def unsupported(method: str, error: Exception) -> EngineError:
    """For an exception of a library, whose kinds nobody documents."""
    from engine.sandbox.text import neutral

    return EngineError(f"{method} failed on this model. {neutral(error)}", field="optimizer", code="unsupported")


def _upgraded(model: Any, least: int) -> Any:
    from onnx import version_converter

    from engine.sandbox.text import neutral

    try:
        return version_converter.convert_version(model, least)
    except Exception as error:  # the converter's C++ raises whatever it likes
        raise EngineError(
            f"The model uses opset {opset(model)}, this method needs {least}, and ONNX cannot convert it. "
            f"{neutral(error)}",
            field="optimizer",
            code="opset",
        ) from error


def _lift_constants(graph: Any) -> None:
    kept = []
    for node in graph.node:
        tensor = next((a.t for a in node.attribute if a.name == "value" and a.HasField("t")), None)
        if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or tensor is None:
            kept.append(node)
            continue
        graph.initializer.append(tensor)
        graph.initializer[-1].name = node.output[0]
    del graph.node[:]
    graph.node.extend(kept)


def _name_nodes(graph: Any) -> None:
    """Unnamed nodes and second bearers of a name get one from their place, always the same."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
            while node.name in taken:
                node.name += "_"
        taken.add(node.name)
