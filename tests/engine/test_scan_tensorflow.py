"""Keras and SavedModel files from strangers, read as data; nothing here needs TensorFlow."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from engine.scan.tensorflow_files import scan_keras, scan_saved_model
from engine.scan.verdict import Findings

DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}, "registered_name": None}


def keras_file(path: Path, layers: list[Any], **more: Any) -> Path:
    """A .keras file as Keras 3 writes it, with these layers."""
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": layers}, **more}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
    return path


def verdict(path: Path) -> str:
    findings = Findings()
    (scan_saved_model if path.suffix == ".pb" else scan_keras)(path, path.name, findings)
    return findings.verdict


def layer(kind: str, module: str | None = "keras.layers", config: Any = None, **more: Any) -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": {} if config is None else config, **more}


def test_verdict_is_clean_when_all_parts_are_keras(tmp_path: Path) -> None:
    parts = [DENSE, layer("Add", "keras.src.ops.numpy"), layer("__numpy__", None), layer("DTypePolicy", "keras")]
    metric = layer("function", "builtins", "sparse_categorical_accuracy", registered_name="function")
    assert verdict(keras_file(tmp_path / "m.keras", parts, compile_config={"metrics": [metric]})) == "clean"


CODE = {"class_name": "__lambda__", "config": {"code": "4wEAAA==", "defaults": None, "closure": None}}
PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "lambda": (layer("Lambda", config={"function": CODE}), "rejected"),
    "lambda of Keras 2": (layer("Lambda", config={"function": ["4wEA", None, None]}), "rejected"),
    "lambda by its type": (layer("Lambda", config={"function": "x", "function_type": "lambda"}), "rejected"),
    "lambda deep inside": (layer("Dense", config={"a": [{"b": {"activation": CODE}}]}), "rejected"),
    "lambda as a shape": (layer("Lambda", config={"function": "f", "output_shape": CODE}), "rejected"),
    "system": (layer("function", "os", "system"), "rejected"),
    "subprocess": (layer("Popen", "subprocess"), "rejected"),
    "named lambda": (layer("Lambda", config={"function": layer("function", "builtins", "f")}), "suspicious"),
    "own module": (layer("Scorer", "my_company.layers"), "suspicious"),
    "own class": (layer("Scorer", None, registered_name="Scorer"), "suspicious"),
    "registered class": (layer("Scorer", None, registered_name="Custom>Scorer"), "suspicious"),
    "function": (layer("function", "builtins", "double"), "suspicious"),
    "download": (layer("function", "keras.utils", "get_file"), "suspicious"),
    "loader": (layer("function", "keras.src.saving.saving_api", "load_model"), "suspicious"),
    "SavedModel inside": (layer("TFSMLayer", config={"filepath": "/etc"}), "suspicious"),
    "keras by its start": (layer("Dense", "kerasevil"), "suspicious"),
}


@pytest.mark.parametrize("name", PARTS)
def test_verdict_is_not_clean_when_a_part_is_foreign(name: str, tmp_path: Path) -> None:
    part, expected = PARTS[name]
    assert verdict(keras_file(tmp_path / "m.keras", [DENSE, part])) == expected


def _zip(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        _zip({"model.weights.h5": b"x"}),
        _zip({"config.json": b"{"}),
        _zip({"config.json": b"\xff\xfe"}),
        _zip({"config.json": b"[" * 200_000}),
        _zip({"config.json": b"{}"})[:-20],
        b"\x89HDF\r\n\x1a\n",
        b"",
    ],
    ids=["no config", "broken", "binary", "deep", "truncated", "HDF5", "empty"],
)
def test_verdict_is_rejected_when_it_is_no_keras_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(content)
    assert verdict(tmp_path / "m.keras") == "rejected"


def _node(name: bytes, operation: bytes) -> bytes:
    """A NodeDef as protobuf writes it: field 1 the name, field 2 the operation."""
    return b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(operation)]) + operation + b"\x1a\x01x"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (_node(b"dense", b"MatMul") + _node(b"MyPyFuncs", b"Relu"), "clean"),
        (_node(b"a", b"PyFunc"), "rejected"),
        (_node(b"a", b"PyFuncStateless"), "rejected"),
        (_node(b"a", b"EagerPyFunc"), "rejected"),
        (b"\x0a\x01a\x12\x86\x00PyFuncA", "rejected"),
        (_node(b"a", b"WriteFile"), "suspicious"),
        (_node(b"a", b"ReadFile"), "suspicious"),
        (b"", "rejected"),
    ],
    ids=["plain", "PyFunc", "stateless", "eager", "odd length", "writes", "reads", "empty"],
)
def test_verdict_follows_the_operations_when_it_is_a_saved_model(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(content)
    assert verdict(tmp_path / "saved_model.pb") == expected
