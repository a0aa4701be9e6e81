"""Hostile model files (cases 21, 22 and 25 to 50): ONNX for the upload, folders for the scan, made by code."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import pkgutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tests.engine import onnx_files
from tests.engine.onnx_files import HOSTILE, relu
from tests.engine.test_scan_source import Reaches


def external(**entries: str) -> bytes:
    """A model whose weight names data elsewhere, with these keys."""
    tensor = onnx_files._weight()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    return onnx_files._with_weight(tensor).SerializeToString()


def in_function() -> bytes:
    """External data in the default of a function's attribute, where few readers look."""
    made = relu()
    function = made.functions.add(name="f", domain="local")
    attribute = function.attribute_proto.add(name="a", type=onnx.AttributeProto.TENSOR)
    attribute.t.CopyFrom(onnx.load_from_string(external(location="/etc/passwd")).graph.initializer[0])
    return bytes(made.SerializeToString())


def million_nodes() -> bytes:
    node = onnx.helper.make_node("Relu", ["x"], ["y"]).SerializeToString()
    field = b"\x0a" + bytes([len(node)]) + node
    graph = field * 1_000_000 + relu().graph.SerializeToString()
    return b"\x08\x08\x3a" + onnx_files._varint(len(graph)) + graph + b"\x42\x02\x10\x11"


def tensors(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    """A safetensors file with this header, and a length of it that may be a lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[int], offsets: list[int], dtype: str = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


GOOD_TENSORS = {"w": tensor([2, 2], [0, 16]), "__metadata__": {"format": "pt"}}

# number, name, maker, words of the cause
UPLOADS: list[tuple[int, str, Callable[[], bytes], str]] = [
    (21, "zip named .onnx", HOSTILE["zip"][0], "zip archive"),
    (21, "picture named .onnx", lambda: b"\x89PNG\r\n\x1a\n" + bytes(200), "picture"),
    (22, "empty", lambda: b"", "empty"),
    (25, "random bytes", HOSTILE["random bytes"][0], "not an ONNX model"),
    (26, "truncated", HOSTILE["truncated"][0], "cut short"),
    (27, "external data ../", lambda: external(location="../../secret"), "another file"),
    (28, "external data x/../../", lambda: external(location="x/../../secret"), "another file"),
    (29, "external data absolute", lambda: external(location="/etc/passwd"), "another file"),
    (33, "external data /dev/zero", lambda: external(location="/dev/zero"), "another file"),
    (33, "external data /proc", lambda: external(location="/proc/self/environ"), "another file"),
    (34, "external data in a sparse file", lambda: external(location="sparse", length="99999999999"), "another file"),
    (35, "external data inside a Constant", HOSTILE["external in constant"][0], "another file"),
    (35, "external data inside a function", in_function, "another file"),
    (36, "negative length", lambda: external(location="w", length="-1"), "impossible length"),
    (36, "petabyte length", lambda: external(location="w", length=str(10**15)), "impossible length"),
    (36, "negative offset", lambda: external(location="w", offset="-9"), "impossible offset"),
    (37, "__class__ key", lambda: external(location="w", __class__="x"), "__class__"),
    (38, "in-memory address", lambda: external(location="*/_ORT_MEM_ADDR_/*", offset="140000"), "address in memory"),
    (39, "custom-domain operator", HOSTILE["custom domain"][0], "evil.ops"),
    (40, "opset 999", HOSTILE["opset 999"][0], "999"),
    (40, "IR 99", HOSTILE["ir 99"][0], "99"),
    (41, "ConstantOfShape of 2^34", HOSTILE["huge constant"][0], "memory"),
    (42, "Loop of 2^60", HOSTILE["loop of 2^60"][0], "rounds"),
    (43, "400 nested Ifs", HOSTILE["400 nested ifs"][0], "nested"),
    (44, "cyclic graph", HOSTILE["cycle"][0], "cycle"),
    (45, "duplicate names", HOSTILE["duplicate names"][0], "twice"),
    (46, "a million nodes", million_nodes, "nodes"),
    (47, "overflowing dimension product", HOSTILE["overflow"][0], "too large"),
    (48, "type and byte length disagree", HOSTILE["type"][0], "16 bytes instead of 32"),
    (50, "pickle named .onnx", HOSTILE["pickle"][0], "pickle"),
    (50, "old pickle named .onnx", HOSTILE["old pickle"][0], "pickle"),
]

# number, name, maker of model.safetensors, words of the cause
TENSORS: list[tuple[int, str, Callable[[], bytes], str]] = [
    (26, "truncated tensors", lambda: tensors(GOOD_TENSORS)[:-5], "outside"),
    (36, "negative offset in tensors", lambda: tensors({"w": tensor([2, 2], [-16, 0])}), "negative"),
    (36, "petabyte of tensors", lambda: tensors({"w": tensor([2, 2], [0, 10**15])}), "outside"),
    (37, "__class__ key in tensors", lambda: tensors({"w": tensor([2, 2], [0, 16], __class__="x")}), "__class__"),
    (37, "__class__ name in tensors", lambda: tensors({"__class__": tensor([2, 2], [0, 16])}), "__class__"),
    (38, "address in tensors", lambda: tensors({"*/_ORT_MEM_ADDR_/*": tensor([2, 2], [0, 16])}), "not allowed"),
    (45, "duplicate names in tensors", lambda: tensors(b'{"w": 1, "w": 2}'), "twice"),
    (47, "overflowing tensors", lambda: tensors({"w": tensor([2**32, 2**32], [0, 0])}), "too large"),
    (48, "type and length of tensors", lambda: tensors({"w": tensor([2, 2], [0, 16], "F64")}), "instead of 32"),
    (49, "header of 2^63", lambda: tensors(GOOD_TENSORS, length=2**63), "9223372036854775808 bytes"),
    (49, "header longer than the file", lambda: tensors(GOOD_TENSORS, length=10**6), "more than the file"),
    (49, "overlapping offsets", lambda: tensors(
        {"a": tensor([2, 2], [0, 16]), "b": tensor([2], [8, 16])}), "overlaps"),
    (49, "hole between offsets", lambda: tensors({"a": tensor([2], [8, 16])}), "belong to none"),
    (49, "deep header", lambda: tensors(b"[" * 100_000), "not plain JSON"),
]  # fmt: skip


def _reaches(function: Any, *args: Any) -> bytes:
    return pickle.dumps(Reaches(function, *args))


# `random` has imported `os`: no name on a list of modules is in it.
WALK = b"\x80\x04\x8c\x06random\x8c\x0a_os.system\x93\x8c\x04true\x85R."

# number, name, name of the file, maker, words of the cause
PICKLES: list[tuple[int, str, str, Callable[[], bytes], str]] = [
    (25, "random bytes as pickle", "model.pkl", lambda: b"\x80\x04" + onnx_files.RANDOM, "cannot be followed"),
    (26, "truncated pickle", "model.pkl", lambda: pickle.dumps(list(range(999)))[:-20], "cannot be followed"),
    (50, "pickle named .onnx in a folder", "extra.onnx", lambda: pickle.dumps(1), "pickle under another name"),
    (50, "pickle named .bin", "weights.bin", lambda: pickle.dumps(1), "pickle under another name"),
    (50, "pickle named .npy", "weights.npy", lambda: pickle.dumps(1), "pickle under another name"),
    (50, "os.system", "model.pkl", lambda: _reaches(os.system, "true"), "system"),
    (50, "importlib.import_module", "model.pkl", lambda: _reaches(importlib.import_module, "os"), "import_module"),
    (50, "pkgutil.resolve_name", "model.pkl", lambda: _reaches(pkgutil.resolve_name, "os:system"), "resolve_name"),
    (50, "walk through a module", "model.pkl", lambda: WALK, "random._os.system"),
    (50, "numpy.fromfile", "model.pkl", lambda: _reaches(np.fromfile, "/etc/passwd"), "fromfile"),
]


def _loose(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(external(location="weights"))


def linked(folder: Path) -> None:
    _loose(folder)
    (folder / "weights").symlink_to("/etc/passwd")


def linked_parent(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(external(location="data/passwd"))
    (folder / "data").symlink_to("/etc")


def hard_linked(folder: Path) -> None:
    _loose(folder)
    (folder.parent / "secret").write_text("x")
    os.link(folder.parent / "secret", folder / "weights")


def piped(folder: Path) -> None:
    _loose(folder)
    os.mkfifo(folder / "weights")


def sparse(folder: Path) -> None:
    _loose(folder)
    with (folder / "weights").open("wb") as file:
        file.truncate(20 << 30)


# MLflow's store has no links and no devices: these folders are given to the function that would meet them.
FOLDERS: list[tuple[int, str, Callable[[Path], None], str]] = [
    (5, "FIFO in a folder", piped, "special files"),
    (30, "symlink", linked, "Links"),
    (31, "symlinked parent", linked_parent, "Links"),
    (32, "hardlink", hard_linked, "Hard links"),
    (34, "sparse file", sparse, "too large"),
]
