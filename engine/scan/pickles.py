"""Judges pickles without unpickling: which names they import, by fickling's symbolic run of the opcodes.

This is no boundary (scanners miss things): it sorts the harmless from what a person should look at. The
sandbox holds the rest.
"""

from __future__ import annotations

import ast
import builtins
from pathlib import Path
from typing import IO

from engine.scan.allowed import judge
from engine.scan.verdict import Findings

_MAX_BYTES = 512 * 1024 * 1024
_BUILTIN_NAMES = frozenset(dir(builtins))
SUFFIXES = {".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".pck"}


def scan_pickle(path: Path, name: str, findings: Findings) -> None:
    """Adds what the pickle (or several in a row) at `path` refers to; `name` is how findings call it."""
    if path.stat().st_size > _MAX_BYTES:
        findings.add("suspicious", name, "This pickle is too large to look into.")
        return
    with path.open("rb") as file:
        if _is_joblib(file) and _imports(file) is None:
            findings.add("suspicious", name, "A joblib file with arrays inside cannot be followed: save it with skops.")
            return
        scan_stream(file, name, findings)


def scan_stream(file: IO[bytes], name: str, findings: Findings) -> None:
    """`scan_pickle` for an open file, read from its start."""
    imports = _imports(file)
    if imports is None:
        findings.add("rejected", name, "This pickle cannot be followed: it is damaged or hides what it does.")
        return
    for module, attribute in sorted(imports):
        judgement = judge(module, attribute)
        if judgement == "dangerous":
            findings.add("rejected", name, f"The pickle calls {module}.{attribute}.")
        elif judgement == "unknown":
            findings.add("suspicious", name, f"The pickle uses {module}.{attribute}, which is not on the list.")
    findings.add("info", name, f"A pickle with {len(imports)} references: it is only opened in the sandbox.")


def _imports(file: IO[bytes]) -> set[tuple[str, str]] | None:
    """(module, name) of every import, None when the opcodes cannot be followed to the end."""
    from fickling.fickle import Pickled, StackedPickle

    try:
        file.seek(0)
        pickles: list[Pickled] = list(StackedPickle.load(file))
        found: set[tuple[str, str]] = set()
        for pickled in pickles:
            if pickled.has_interpretation_error or pickled.has_invalid_opcode:
                return None
            found |= _names(pickled.ast)
        return found if pickles else None
    except (Exception, RecursionError):
        # Whatever way the emulator fails, a file it cannot follow is one nobody has judged.
        return None


def _names(tree: ast.Module) -> set[tuple[str, str]]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
    # Builtins need no import in the emulator's program; they are called by name.
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            if name in _BUILTIN_NAMES and ("builtins", name) not in found:
                found.add(("builtins", name))
    return found


def _is_joblib(file: IO[bytes]) -> bool:
    """joblib puts raw array bytes between the opcodes, which no pickle reader follows."""
    file.seek(0)
    return b"NumpyArrayWrapper" in file.read(1 << 20)
