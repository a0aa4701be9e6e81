"""Offline fusion: ONNX Runtime's own graph optimization, done once and saved instead of at every start."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.optimize.base import NOTHING
from engine.optimize.material import Material
from engine.optimize.written import failed, no_gain, operators, write

_FUSED = "com.microsoft"
_LAYOUTS = {"com.microsoft.nchwc", "com.ms.internal.nhwc"}


class OfflineFusion:
    """Models start faster; calls are hardly faster, since ONNX Runtime would do the same when it loads the model."""

    name = "offline-fusion"
    label = "Fuse operators for ONNX Runtime"
    family = "acceleration"
    needs = NOTHING
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        level: Literal["basic", "extended", "all"] = Field(
            "extended",
            description="Basic keeps to standard operators; extended joins operators into ones that only ONNX Runtime "
            "has; all is refused where it would fix the memory layout to this processor.",
        )

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="machine-specific") when the level fixes a memory layout, (code="no-gain") when the
        operators stay as they are."""
        from engine.scan.onnx_structure import parse

        content = model.read_bytes()
        before = operators(parse(content))
        fused = parse(_saved(content, options.level))
        after = operators(fused)
        if any(domain in _LAYOUTS for domain, _ in after):
            raise EngineError(
                "This level fixes the memory layout of convolutions to the processor it runs on; take 'extended': "
                "ONNX Runtime chooses the layout itself when it loads the model.",
                field="level",
                code="machine-specific",
            )
        if after == before:
            raise no_gain(f"ONNX Runtime has nothing to fuse at level '{options.level}'.")
        write(fused, target)
        notes = [f"{after.total()} operators instead of {before.total()}."]
        if own := sorted({kind for domain, kind in after if domain == _FUSED}):
            notes.append(f"Only ONNX Runtime reads {', '.join(own)}; quantize and prune before this step, not after.")
        return notes


def _saved(content: bytes, level: str) -> bytes:
    """The graph as ONNX Runtime's CPU provider optimizes it."""
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = {
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[level]
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "saved.onnx")
        settings.optimized_model_filepath = str(saved)
        try:
            onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        except Exception as error:
            # ONNX Runtime raises a dozen unrelated types.
            raise failed("ONNX Runtime cannot save this model", error) from error
        return saved.read_bytes()
