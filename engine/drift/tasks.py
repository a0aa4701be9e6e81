"""The sandboxed task of this room: files of rows are foreign too."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def baseline(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Baseline of inputs["rows"]; params: target ("target"). See `engine.drift.baseline.baseline`."""
    from engine.drift.baseline import baseline as of
    from engine.evaluate import rows

    return of(rows.load(inputs["rows"], str(params.get("target") or "target")))
