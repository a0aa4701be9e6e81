"""What an exporter is: one class in one file of this package, found by `engine.plugins`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from engine import plugins
from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows

GROUP = "slipway.exporters"


@dataclass(frozen=True, slots=True)
class Source:
    """A stored model to convert. folder: its MLflow folder; framework: as the scan names it."""

    folder: Path
    framework: str


class Exporter(Protocol):
    """name, label: for programs and people. format: of the artifact. file_name: of the one file written.

    One with `on_request = True` is not run by itself when a version comes in. One with a method `wrap` (see
    `on_onnx.OnOnnx`) makes its artifact of an ONNX file, which it leaves in `out` as model.onnx."""

    name: str
    label: str
    format: str
    file_name: str
    Options: Any

    def why_not(self, framework: str) -> str | None:
        """Why it cannot convert this framework, for a person; None when it can."""

    def environment(self, framework: str) -> str | None:
        """Name of the lock (`locks/<name>.txt`) it needs for this framework, None for the worker's own packages."""

    def export(self, source: Source, rows: Rows, out: Path, options: Any) -> dict[str, Any]:
        """Writes out/<file_name>; returns {"signature", "labels", "opset", ...}. Runs in the sandbox."""

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        """What the written artifact predicts for `rows`. Runs in the sandbox."""


@cache
def exporters() -> dict[str, Exporter]:
    """All exporters by name, looked for once; imports no framework."""
    return plugins.discover("engine.export", GROUP, ["why_not", "environment", "export", "score"])


def exporter(name: str) -> Exporter:
    """EngineError(field="exporter") for a name nobody has."""
    known = exporters()
    if name not in known:
        raise EngineError(f"There is no exporter '{name[:40]}'.", field="exporter", code="unknown")
    return known[name]
