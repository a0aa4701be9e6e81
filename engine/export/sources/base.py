"""What a source is: one class in one file of this package, found by `engine.plugins`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Protocol

from engine import plugins
from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows

GROUP = "slipway.sources"


class SourceKind(Protocol):
    """name: the framework as the scan names it. label: for people. environment: name of the lock
    (`locks/<name>.txt`) its models are loaded in, None for the worker's own packages. One with `complete = True` is
    a format that says everything itself: the packages it was made with do not matter."""

    name: str
    label: str
    environment: str | None
    Options: Any

    def load(self, folder: Path) -> Any:
        """The model of an MLflow folder (or of a bare file). Runs foreign code: sandbox only."""

    def predictions(self, model: Any, rows: Rows) -> Outputs:
        """What the model itself says of the rows."""

    def class_labels(self, model: Any) -> list[Any] | None:
        """Class names in the order of the scores, as JSON values; None where there are none."""


@cache
def sources() -> dict[str, SourceKind]:
    """All kinds by framework, looked for once; imports no framework."""
    return plugins.discover("engine.export.sources", GROUP, ["load", "predictions", "class_labels"])


def source_of(framework: str) -> SourceKind:
    """EngineError(field="exporter") for a framework whose models cannot be loaded here."""
    known = sources()
    if framework not in known:
        raise EngineError(
            f"Models of {framework[:40]} cannot be loaded; those of {', '.join(s.label for s in known.values())} can.",
            field="exporter",
            code="unsupported",
        )
    return known[framework]
