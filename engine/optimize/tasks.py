"""The sandboxed task that makes one variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.optimize.base import optimizer
from engine.plugins import options_of


def optimize(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Applies params["optimizer"] with params["options"] to the ONNX file inputs["model"].

    {"file": "model.onnx", "recipe": {"optimizer", "options", "versions"}, "size_bytes", "source_bytes", "notes",
    "signature"}. The variant has passed `check_onnx`. EngineError for what cannot be optimized.
    """
    from engine.scan.tasks import check_onnx_file

    plugin = optimizer(str(params.get("optimizer")))
    options = options_of(plugin, params.get("options") or {})
    source, target = inputs["model"], out / "model.onnx"
    print(f"{plugin.label} of {source.stat().st_size} bytes")
    notes = plugin.optimize(source, target, options)
    checked = check_onnx_file(target)
    return {
        "file": target.name,
        "recipe": {"optimizer": plugin.name, "options": options.model_dump(), "versions": _versions()},
        "size_bytes": target.stat().st_size,
        "source_bytes": source.stat().st_size,
        "signature": checked["signature"],
        "notes": notes,
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("onnx", "onnxruntime")}
