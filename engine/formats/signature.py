"""Signatures: what a model takes and gives, as tensor metadata of the Open Inference Protocol V2.

A tensor is `{"name": str, "datatype": str, "shape": [int, ...]}`; -1 is a dimension of any size. What serving
answers as a tensor and the model itself does not has a "kind" too: `MAPS` or `SEQUENCE`. A
signature is `{"inputs": [tensor, ...], "outputs": [tensor, ...]}`.
"""

from __future__ import annotations

import json
from typing import Any

from engine.errors import EngineError

# A sequence of maps, one a row (a scikit-learn classifier's ZipMap): BYTES [N], each map as JSON text.
MAPS = "maps"
# A sequence of tensors: one tensor with a new first axis.
SEQUENCE = "sequence"

Tensor = dict[str, Any]
Signature = dict[str, list[Tensor]]

# V2 name, numpy name, element type number of ONNX
_TYPES = [
    ("FP32", "float32", 1),
    ("UINT8", "uint8", 2),
    ("INT8", "int8", 3),
    ("UINT16", "uint16", 4),
    ("INT16", "int16", 5),
    ("INT32", "int32", 6),
    ("INT64", "int64", 7),
    ("BYTES", "object", 8),
    ("BOOL", "bool", 9),
    ("FP16", "float16", 10),
    ("FP64", "float64", 11),
    ("UINT32", "uint32", 12),
    ("UINT64", "uint64", 13),
]
NUMPY = {v2: numpy for v2, numpy, _ in _TYPES}
ONNX = {number: v2 for v2, _, number in _TYPES}
_OF_NUMPY = {numpy: v2 for v2, numpy, _ in _TYPES} | {"str": "BYTES", "bytes": "BYTES"}
_OF_MLFLOW_COLUMN = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
    "datetime": "BYTES",
}


def tensor(name: str, datatype: str, shape: list[int], kind: str = "") -> Tensor:
    return {"name": name, "datatype": datatype, "shape": shape, **({"kind": kind} if kind else {})}


def of_numpy(dtype: str) -> str:
    """V2 datatype of a numpy dtype's name. EngineError for one V2 has no word for."""
    name = "str" if dtype.startswith(("str", "<U", "|S", "bytes")) else dtype
    if name not in _OF_NUMPY:
        raise EngineError(f"Values of type {dtype} are not supported.", code="datatype")
    return _OF_NUMPY[name]


def of_onnx_value(value: Any) -> Tensor:
    """Tensor of an ONNX ValueInfoProto, as serving answers it: a sequence of tensors has a new first axis, a sequence
    of maps (a scikit-learn classifier's ZipMap) is BYTES [N] of JSON. EngineError for what V2 cannot carry."""
    kind = value.type
    if kind.WhichOneof("value") == "optional_type":
        kind = kind.optional_type.elem_type
    axis: list[int] = []
    told = ""
    if kind.WhichOneof("value") == "sequence_type":
        kind, axis, told = kind.sequence_type.elem_type, [-1], SEQUENCE
        if kind.WhichOneof("value") == "map_type":
            return tensor(value.name, "BYTES", axis, MAPS)
    if kind.WhichOneof("value") != "tensor_type":
        word = (kind.WhichOneof("value") or "untyped value").replace("_type", "")
        raise EngineError(f"'{value.name}' is a {word}, not a tensor.", field="file", code="datatype")
    kind = kind.tensor_type
    if kind.elem_type not in ONNX:
        raise EngineError(f"'{value.name}' has an unsupported element type.", field="file", code="datatype")
    shape = [
        dim.dim_value if dim.WhichOneof("value") == "dim_value" else -1
        for dim in (kind.shape.dim if kind.HasField("shape") else [])
    ]
    return tensor(value.name, ONNX[kind.elem_type], [*axis, *shape], told)


def of_onnx(model: Any) -> Signature:
    """Signature of a parsed ONNX ModelProto; inputs that are initializers (defaults) are left out.

    EngineError for an input that is no tensor: rows could not be fed to it."""
    graph = model.graph
    stored = {each.name for each in graph.initializer}
    asked = [each for each in graph.input if each.name not in stored]
    for each in asked:
        kind = each.type.WhichOneof("value")
        if kind != "tensor_type":
            word = (kind or "untyped value").replace("_type", "")
            raise EngineError(f"The input '{each.name}' is a {word}, not a tensor.", field="file", code="datatype")
    return {
        "inputs": [of_onnx_value(each) for each in asked],
        "outputs": [of_onnx_value(each) for each in graph.output],
    }


def of_mlflow(recorded: Any) -> Signature:
    """Signature recorded in an MLmodel file (its `signature` block); empty lists where it has none."""
    recorded = recorded if isinstance(recorded, dict) else {}
    return {
        side: _mlflow_side(recorded.get(side), "input" if side == "inputs" else "output")
        for side in ("inputs", "outputs")
    }


def _mlflow_side(text: Any, default: str) -> list[Tensor]:
    if text is None:
        return []
    try:
        entries = json.loads(text) if isinstance(text, str) else text
        return [_mlflow_tensor(entry, f"{default}_{i}") for i, entry in enumerate(entries)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise EngineError("The signature in MLmodel is not readable.", field="file") from error


def _mlflow_tensor(entry: dict[str, Any], default: str) -> Tensor:
    name = str(entry.get("name") or default)
    if entry["type"] == "tensor":
        spec = entry["tensor-spec"]
        return tensor(name, of_numpy(str(spec["dtype"])), [int(size) for size in spec["shape"]])
    # Nested columns (array, object, map) travel as JSON text.
    return tensor(name, _OF_MLFLOW_COLUMN.get(entry["type"], "BYTES"), [-1])
