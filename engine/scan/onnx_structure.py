"""Structural checks of an ONNX model, on the parsed protobuf alone: nothing is executed or allocated.

Every refusal is an EngineError(field="file") whose text says what is wrong in the file's own names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.scan import external, onnx_loops, wire
from engine.scan.magic import kind_of
from engine.scan.names import printable as name_of
from engine.scan.refusal import refuse

MAX_BYTES = 2**31 - 1  # protobuf's own limit
MAX_NODES = 100_000
MAX_DEPTH = 16
MAX_INITIALIZERS = 50_000
MAX_ELEMENTS = 2**33

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
# ONNX Runtime declares these in every file it writes; their operators are still refused.
_DECLARED = _DOMAINS | {
    "ai.onnx.training",
    "ai.onnx.preview",
    "ai.onnx.preview.training",
    "com.microsoft.experimental",
    "com.microsoft.nchwc",
    "com.ms.internal.nhwc",
    "org.pytorch.aten",
}
# bytes of one element in raw_data, and the field that holds values otherwise with how many entries
# one element takes; numbers are TensorProto.DataType
_SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2}
_SIZES |= {17: 1, 18: 1, 19: 1, 20: 1}
_HALF_BYTES = {21: 2, 22: 2, 23: 2}  # 4-bit types: elements in a byte
_STRING = 8
_FIELDS = {1: "float_data", 7: "int64_data", 8: "string_data", 11: "double_data", 12: "uint64_data"}
_FIELDS |= {13: "uint64_data", 14: "float_data", 15: "double_data"}


def parse(data: bytes) -> Any:
    """ModelProto of `data`, or a refusal that says what the bytes are instead."""
    import onnx
    from google.protobuf.message import DecodeError

    if not data:
        raise refuse("The file is empty.")
    kind = kind_of(data[:512])
    if kind:
        raise refuse(f"This is a {kind}, not an ONNX model.", code="magic")
    if len(data) > MAX_BYTES:
        raise refuse("The file is larger than the 2 GB an ONNX file can have.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise refuse(wire.diagnose(data)) from error
    if not model.HasField("graph") or not model.opset_import or model.ir_version <= 0:
        raise refuse("This is not an ONNX model.", code="magic")
    return model


def check(model: Any) -> dict[str, int]:
    """Refuses a model that is malformed, oversized or reaches outside; {"nodes", "parameters"}."""
    import onnx

    if model.ir_version > onnx.IR_VERSION:
        raise refuse(f"IR version {model.ir_version} is newer than {onnx.IR_VERSION}, the newest known.")
    _check_opsets(model)
    nodes, parameters = 0, 0
    local = {(each.domain, each.name) for each in model.functions}
    for graph, depth in graphs(model):
        nodes += len(graph.node)
        if depth > MAX_DEPTH:
            raise refuse(f"Graphs are nested more than {MAX_DEPTH} deep.")
        if nodes > MAX_NODES:
            raise refuse(f"The model has more than {MAX_NODES} nodes.")
        _check_operators(graph.node, local)
        _check_attributes(getattr(graph, "attribute_proto", []), "function")
        if graph.DESCRIPTOR.name == "GraphProto":
            parameters += _check_stored(graph)
    onnx_loops.check(model)
    _check_scopes(model.graph, set())
    for function in model.functions:
        _check_flow(function.node, set(function.input), set(), f"function '{name_of(function.name)}'")
    return {"nodes": nodes, "parameters": parameters}


def _check_opsets(model: Any) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    local = {each.domain for each in model.functions}
    for entry in model.opset_import:
        if entry.domain not in _DECLARED | local:
            raise refuse(f"The operator domain '{name_of(entry.domain)}' is not allowed.", code="domain")
        if entry.domain in ("", "ai.onnx") and not 1 <= entry.version <= newest:
            raise refuse(f"Opset {entry.version} is not supported (1 to {newest} are).", code="opset")


def graphs(model: Any) -> Iterator[tuple[Any, int]]:
    """Every graph and function body with its nesting depth, outermost first."""
    todo: list[tuple[Any, int]] = [(model.graph, 1), *((each, 1) for each in model.functions)]
    todo += [(graph, 1) for each in model.training_info for graph in (each.initialization, each.algorithm)]
    while todo:
        graph, depth = todo.pop()
        yield graph, depth
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    todo.append((attribute.g, depth + 1))
                todo += [(each, depth + 1) for each in attribute.graphs]


def _check_operators(nodes: Any, local: set[tuple[str, str]]) -> None:
    from onnx import defs

    for node in nodes:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (node.domain, node.op_type) not in local:
            if domain not in _DOMAINS:
                raise refuse(
                    f"Operator '{name_of(node.op_type)}' of domain '{name_of(domain)}' is not allowed.",
                    code="domain",
                )
            if domain != "com.microsoft" and not defs.has(node.op_type, domain):
                raise refuse(f"There is no operator '{name_of(node.op_type)}'.", code="operator")
        _check_attributes(node.attribute, name_of(node.op_type))


def _check_attributes(attributes: Any, what: str) -> None:
    for attribute in attributes:
        dense = [attribute.t] if attribute.HasField("t") else []
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for each in [*dense, *attribute.tensors]:
            check_tensor(each, f"attribute of {what}")
        for each in [*sparse, *attribute.sparse_tensors]:
            check_tensor(each.values, "sparse attribute")
            check_tensor(each.indices, "sparse attribute")


def _check_stored(graph: Any) -> int:
    """Checks weights and declared shapes; returns how many numbers are stored."""
    if len(graph.initializer) + len(graph.sparse_initializer) > MAX_INITIALIZERS:
        raise refuse(f"The model stores more than {MAX_INITIALIZERS} tensors.")
    total = sum(check_tensor(each, f"tensor '{name_of(each.name)}'") for each in graph.initializer)
    for sparse in graph.sparse_initializer:
        total += check_tensor(sparse.values, f"sparse tensor '{name_of(sparse.values.name)}'")
        check_tensor(sparse.indices, "sparse indices")
        _elements(sparse.dims, "sparse tensor")
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.WhichOneof("value") == "tensor_type":
            dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_value")]
            _elements(dims, f"'{name_of(value.name)}'")
    return total


def _elements(dims: Any, what: str) -> int:
    count = 1
    for dim in dims:
        if dim < 0:
            raise refuse(f"The {what} has a negative dimension.", code="shape")
        count *= dim
        if count > MAX_ELEMENTS:
            raise refuse(f"The dimensions of {what} are too large.", code="shape")
    return count


def check_tensor(tensor: Any, what: str) -> int:
    """Elements of one stored tensor, after checking that its bytes are here and as many as it says."""
    if tensor.data_location == 1 or tensor.external_data:
        raise refuse(external.reason(tensor, what), code="external-data")
    count = _elements(tensor.dims, what)
    kind = tensor.data_type
    if kind in _HALF_BYTES:
        expected = -(-count // _HALF_BYTES[kind])
    elif kind in _SIZES:
        expected = count * _SIZES[kind]
    elif kind == _STRING:
        expected = -1
    else:
        raise refuse(f"The {what} has an unknown data type ({kind}).", code="datatype")
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != expected:
            raise refuse(f"The {what} has {len(tensor.raw_data)} bytes instead of {expected}.", code="length")
        return count
    field = _FIELDS.get(kind, "int32_data")
    per = 2 if kind in (14, 15) else 1
    stored = len(getattr(tensor, field))
    wanted = expected if kind in _HALF_BYTES else count * per
    if stored != wanted:
        raise refuse(f"The {what} has {stored} values instead of {wanted}.", code="length")
    return count


def _check_scopes(graph: Any, outer: set[str]) -> None:
    """One producer for each name, and nothing read before it is produced. Depth is already bounded."""
    own = {each.name for each in graph.initializer} | {each.values.name for each in graph.sparse_initializer}
    if len(own) != len(graph.initializer) + len(graph.sparse_initializer):
        raise refuse("Two stored tensors have the same name.", code="duplicate")
    inputs = [each.name for each in graph.input]
    if len(set(inputs)) != len(inputs):
        raise refuse("Two inputs have the same name.", code="duplicate")
    known = _check_flow(graph.node, own | set(inputs), outer, "graph")
    for output in graph.output:
        if output.name not in known and output.name not in outer:
            raise refuse(f"Nothing produces the output '{name_of(output.name)}'.", code="graph")


def _check_flow(nodes: Any, known: set[str], outer: set[str], where: str) -> set[str]:
    known = set(known)
    later = {name for node in nodes for name in node.output}
    for node in nodes:
        for name in node.input:
            if name and name not in known and name not in outer:
                if name in later:
                    raise refuse(
                        f"The {where} has a cycle or is out of order: '{name_of(node.op_type)}' reads "
                        f"'{name_of(name)}' before it is produced.",
                        code="cycle",
                    )
                raise refuse(
                    f"'{name_of(node.op_type)}' reads '{name_of(name)}', which nothing produces.", code="graph"
                )
        for attribute in node.attribute:
            for body in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                _check_scopes(body, known | outer)
        for name in node.output:
            if name and name in known:
                raise refuse(f"The name '{name_of(name)}' is produced twice.", code="duplicate")
            if name:
                known.add(name)
    return known
