"""What the optimizers that rewrite graphs share: counting operators, and writing what the check of variants takes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from engine.errors import EngineError


def operators(model: Any) -> Counter[tuple[str, str]]:
    """How often each (domain, operator) is in the model, nested graphs and functions included. A Constant is a way
    to store, not an operator."""
    from engine.scan.onnx_structure import graphs

    found = Counter((_domain(node), node.op_type) for graph, _ in graphs(model) for node in graph.node)
    del found["", "Constant"]
    return found


def _domain(node: Any) -> str:
    return "" if node.domain == "ai.onnx" else str(node.domain)


def write(model: Any, target: Path) -> None:
    """Saves the model with the operator sets that it uses: libraries declare every one that they know."""
    import onnx

    used = {domain for domain, _ in operators(model)} | {each.domain for each in model.functions} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used | {"ai.onnx"}]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.save(model, str(target))


def no_gain(message: str) -> EngineError:
    return EngineError(message, field="optimizer", code="no-gain")


def failed(what: str, error: Exception) -> EngineError:
    """For what a library raises, which may be of any type."""
    from engine.sandbox.text import neutral

    return EngineError(f"{what}. {neutral(error)}", field="optimizer", code="unsupported")
