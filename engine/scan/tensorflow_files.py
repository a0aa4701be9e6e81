"""Keras and SavedModel files read as data: what would bring code along when somebody loads them."""

from __future__ import annotations

import json
import mmap
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.scan.allowed import judge
from engine.scan.verdict import Findings, Level

_MAX_CONFIG = 64 * 1024**2
# Layers that hold or load a program of another kind; Keras refuses some of them by itself.
_WRAPPERS = {"TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
# Of Keras, but no part of a model: they download, unpack, read and write files.
_TOOLS = re.compile(r"keras(\.src)?\.(utils|saving|export|config|backend|callbacks|applications|datasets)(\..*)?")
# No look behind the name: what may follow it in a protobuf is anything. Every attempt to hide the byte before it
# (the length) still leaves one that is no letter.
_PYTHON_OPS = re.compile(rb"(?<![A-Za-z0-9_])(Eager)?PyFunc")
_FILE_OPS = re.compile(rb"(?<![A-Za-z0-9_])(WriteFile|ReadFile|WholeFileReader|MatchingFiles|PrintV2)")


def scan_keras(path: Path, name: str, findings: Findings) -> None:
    """A .keras file: a zip whose config.json names every class and function of the model.

    Python code inside and references to known ways out are `rejected`; classes that are not Keras's own,
    functions by name and layers that wrap something else are `suspicious`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("config.json")
            if entry.file_size > _MAX_CONFIG:
                findings.add("rejected", name, "config.json is larger than 64 MB.")
                return
            config = json.loads(archive.read(entry))
    except Exception:
        # The file is foreign: zip, its compressions, encryption and JSON each raise errors of their own.
        findings.add("rejected", name, "This is no Keras file: config.json is missing or unreadable.")
        return
    said: set[str] = set()
    for part, training in _objects(config):
        found = _judge(part, training)
        if found is not None and found[1] not in said:
            said.add(found[1])
            findings.add(found[0], name, found[1])


def _objects(config: Any) -> Iterator[tuple[dict[str, Any], bool]]:
    """Every mapping that names a class, at any depth, and whether it only matters for training."""
    waiting = [(config, False)]
    while waiting:
        each, training = waiting.pop()
        if isinstance(each, dict):
            waiting.extend((value, training or key == "compile_config") for key, value in each.items())
            if "class_name" in each:
                yield each, training
        elif isinstance(each, list):
            waiting.extend((value, training) for value in each)


def _judge(part: dict[str, Any], training: bool) -> tuple[Level, str] | None:
    kind, module, config = str(part["class_name"]), part.get("module"), part.get("config")
    inner = config if isinstance(config, dict) else {}
    if kind == "__lambda__" or (kind == "Lambda" and (isinstance(inner.get("function"), list) or _is_lambda(inner))):
        return "rejected", "The model holds Python code (a Lambda layer)."
    if kind == "Lambda":
        return "suspicious", "The model holds a Lambda layer, which calls a function by name."
    if kind in _WRAPPERS:
        return "suspicious", f"The model holds a {kind}, which loads another program."
    shown = f"{module}.{config if kind == 'function' else kind}"[:120]
    if isinstance(module, str) and module and module != "builtins":
        if _TOOLS.fullmatch(module):
            return "suspicious", f"The model uses {shown}, which is no part of a model."
        if module == "keras" or module.startswith("keras."):
            return None
        level: Level = "rejected" if judge(module, kind) == "dangerous" else "suspicious"
        return level, f"The model uses {shown}, which is not part of Keras."
    if kind == "function":
        # Losses and metrics of Keras are stored like this, its activations are not.
        return None if training else ("suspicious", f"The model calls the function {str(config)[:80]} by name.")
    if kind.startswith("__") or kind == "slice":
        return None  # numbers, texts, shapes
    return "suspicious", f"The model uses {str(part.get('registered_name') or kind)[:80]}, which is not part of Keras."


def _is_lambda(config: dict[str, Any]) -> bool:
    """How Keras 2 says that the function is code."""
    return "lambda" in (config.get("function_type"), config.get("output_shape_type"), config.get("mask_type"))


def scan_saved_model(path: Path, name: str, findings: Findings) -> None:
    """The saved_model.pb of a SavedModel: operations that call Python are `rejected`, those that read and write
    files by name `suspicious`. Everything else in it is arithmetic."""
    if path.stat().st_size == 0:
        findings.add("rejected", name, "This SavedModel is empty.")
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _PYTHON_OPS.search(content):
            findings.add("rejected", name, "The graph calls Python (py_function).")
        found = _FILE_OPS.search(content)
        if found:
            findings.add("suspicious", name, f"The graph may read or write files ({found[1].decode()}).")
