"""Four-bit floats: NF4 or FP4 values times a scale for each block of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.optimize.base import NOTHING
from engine.optimize.material import Material

# Quantiles of the normal distribution, with an exact zero: Dettmers et al., "QLoRA" (2023), appendix E.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
# One sign, two exponent and one mantissa bit over its largest value, 6: Open Compute Project, "Microscaling Formats"
# 1.0, section 5.3.3. Its two zeros are one here.
FP4 = tuple(value / 6 for value in (-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6))


class FourBitFloat:
    """w' = scale * nearest level of (w / scale), scale = max|w| of its block of consecutive weights."""

    name = "four-bit-float"
    label = "Four-bit floats (NF4, FP4)"
    family = "quantization"
    needs = NOTHING
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        kind: Literal["nf4", "fp4"] = Field(
            "nf4", description="nf4: levels dense around zero, as weights are. fp4: levels of a 4-bit float (E2M1)."
        )
        block: Literal[16, 32, 64, 128, 256] = Field(
            64, description="Weights that share a scale: fewer are nearer to the original and take more space."
        )

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="no-gain") without weights of some size."""
        import numpy as np

        from engine.optimize.graph import codes

        book = np.array(NF4 if options.kind == "nf4" else FP4, np.float32)

        def encode(rows: Any) -> codes.Coded:
            blocks = np.pad(rows.ravel(), (0, -rows.size % options.block)).reshape(-1, options.block)
            scales = np.abs(blocks).max(axis=1)
            coded = codes.nearest(blocks / np.where(scales > 0, scales, 1)[:, None], book)
            return codes.Coded(coded.ravel()[: rows.size].reshape(rows.shape), book[None], scales, options.block)

        return [codes.code_all(model, target, encode)]
