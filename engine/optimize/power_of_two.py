"""Power-of-two weights: every weight is zero, or a sign and a whole exponent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.optimize.base import NOTHING
from engine.optimize.material import Material

_EXPONENTS = 7


class PowerOfTwo:
    """Levels 0 and ±2^(m-i), i = 0..6, in 4-bit codes: multiplications become shifts where hardware has them.

    m = floor(log2(4/3 * max|w|)), and a weight takes the nearest level: Zhou et al., "Incremental Network
    Quantization" (ICLR 2017), equations 1 to 4, without its retraining. m is found for each output channel or, with
    `per_channel` off, for the whole tensor.
    """

    name = "power-of-two"
    label = "Power-of-two weights (4 bit)"
    family = "quantization"
    needs = NOTHING
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        per_channel: bool = Field(
            True, description="A largest exponent for each output channel: nearer to the original, slightly larger."
        )

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="no-gain") without weights of some size."""
        import numpy as np

        from engine.optimize.graph import codes

        powers = 2.0 ** -np.arange(_EXPONENTS)
        book = np.concatenate([-powers, [0], powers[::-1]]).astype(np.float32)

        def encode(rows: Any) -> codes.Coded:
            blocks = rows if options.per_channel else rows.reshape(1, -1)
            largest = np.abs(blocks).max(axis=1).astype(np.float64)
            # A channel of zeros has no logarithm; with any scale it stays zero.
            scales = np.exp2(np.floor(np.log2(np.where(largest > 0, largest, 1) * 4 / 3))).astype(np.float32)
            coded = codes.nearest(blocks / scales[:, None], book).reshape(rows.shape)
            return codes.Coded(coded, book[None], scales, blocks.shape[1])

        return [codes.code_all(model, target, encode)]
