"""The models of a folder as ONNX Runtime sees them, for hosting them elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort

DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
    "optional(tensor(float))": "FP32",
}


def session(path: str) -> ort.InferenceSession:
    """A session with one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def found(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """(name, version, file) of every model that numpy can carry."""
    for path in sorted(folder.rglob("*.onnx")):
        whole = path.name == "model.onnx"
        name = path.parent.parent.name if whole else path.stem
        if name != "id-bf16":
            yield name, path.parent.name if whole else "1", path


def tensors(nodes: Any) -> list[dict[str, Any]]:
    """V2 metadata of a session's inputs or outputs; those without a V2 datatype are left out."""
    return [
        {
            "name": node.name,
            "datatype": DATATYPES[node.type],
            "shape": [d if isinstance(d, int) else -1 for d in node.shape],
        }
        for node in nodes
        if node.type in DATATYPES
    ]
