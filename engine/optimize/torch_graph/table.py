"""The table of operators: one function for each, found by domain and name.

torch is reached through the call, never imported by these files: they are listed where no torch is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from engine.errors import EngineError

Operator = Callable[..., Any]
OPERATORS: dict[tuple[str, str], Operator] = {}


@dataclass(slots=True)
class Call:
    """What an operator's function knows besides its tensors, which follow in the node's order (None: left out).

    f: torch.nn.functional. outputs: how many results are asked for. opset: version of the node's domain.
    training: normalizations take the batch's own statistics and update the running ones.
    """

    torch: ModuleType
    f: ModuleType
    attributes: dict[str, Any]
    outputs: int
    opset: int
    training: bool = False

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; texts as str."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def numbers(self, name: str, tensor: Any) -> list[int] | None:
        """Whole numbers that are an input in newer operator sets and an attribute in older ones."""
        if tensor is not None:
            return [int(value) for value in tensor.reshape(-1).tolist()]
        return self.attributes.get(name)


def operator(*names: str, domain: str = "") -> Callable[[Operator], Operator]:
    """Enters a function into the table."""

    def enter(function: Operator) -> Operator:
        OPERATORS.update({(domain, name): function for name in names})
        return function

    return enter


def find(domain: str, name: str) -> Operator:
    """EngineError(code="unsupported") naming the operator nobody entered."""
    domain = "" if domain == "ai.onnx" else domain
    if (domain, name) not in OPERATORS:
        full = f"{domain}.{name}" if domain else name
        raise unsupported(f"The operator {full[:60]} cannot be trained.")
    return OPERATORS[domain, name]


def unsupported(message: str) -> EngineError:
    return EngineError(message, field="optimizer", code="unsupported")
