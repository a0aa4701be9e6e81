"""What an exporter is: one class in one file of this package, found by `engine.plugins`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine import plugins
from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.sentence import Sentence

GROUP = "slipway.exporters"


@dataclass(frozen=True, slots=True)
class Source:
    """A stored model to convert. folder: its MLflow folder; framework: as the scan names it."""

    folder: Path
    framework: str


class Exporter:
    """What every exporter is. name, label: for programs and people. format: of the artifact. file_name: of the one
    file written.

    on_request: not run by itself when a version comes in. from_onnx: its artifact is made by `wrap` of an ONNX file,
    which `export` leaves in `out` as model.onnx."""

    name: str
    label: str
    format: str
    file_name: str
    Options: type[Any]
    on_request: bool = False
    from_onnx: bool = False

    def why_not(self, framework: str) -> Sentence | None:
        """Why it cannot convert this framework, in a sentence for a person; None when it can."""
        raise NotImplementedError

    def environment(self, framework: str) -> str | None:
        """Name of the lock (`locks/<name>.txt`) it needs for this framework, None for the worker's own packages."""
        raise NotImplementedError

    def export(self, source: Source, rows: Rows, out: Path, options: Any) -> dict[str, Any]:
        """Writes out/<file_name>; returns {"signature", "labels", "opset", ...}. Runs in the sandbox."""
        raise NotImplementedError

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        """What the written artifact predicts for `rows`. Runs in the sandbox."""
        raise NotImplementedError

    def place(self, source: Source, rows: Rows, artifact: Path, options: Any, tolerance: float) -> str:
        """Where the artifact begins to say something else than the source, as the end of a sentence; "" when nobody
        can say. Asked in the sandbox when they do; raises nothing."""
        return ""

    def wrap(self, onnx_file: Path, artifact: Path, described: dict[str, Any], options: Any) -> None:
        """Makes `artifact` of an ONNX file of that signature. Asked only where `from_onnx`."""
        raise NotImplementedError


@cache
def exporters() -> dict[str, Exporter]:
    """All exporters by name, looked for once; imports no framework."""
    found: dict[str, Exporter] = plugins.discover("engine.export", GROUP, [])
    for each in found.values():
        if not isinstance(each, Exporter):
            where = f"{type(each).__module__}.{type(each).__name__}"
            raise plugins.PluginError(f"{where} is no `engine.export.base.Exporter`.")
    return found


def exporter(name: str) -> Exporter:
    """EngineError(field="exporter") for a name nobody has."""
    known = exporters()
    if name not in known:
        raise EngineError(f"There is no exporter '{name[:40]}'.", field="exporter", code="unknown")
    return known[name]
