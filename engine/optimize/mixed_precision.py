"""Mixed precision: static int8 everywhere but in the layers that mind it most."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.optimize.base import CALIBRATION
from engine.optimize.material import Material


class MixedPrecision:
    """Ranks layers by `engine.optimize.sensitivity`, keeps the first of them in float, and quantizes the rest."""

    name = "mixed-precision"
    label = "Mixed precision (int8 and float)"
    family = "quantization"
    needs = CALIBRATION
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        keep: float = Field(
            0.2,
            gt=0,
            le=1000,
            description="Layers that stay in float: below 1 their share, from 1 on their number. "
            "The most sensitive are chosen.",
        )
        kept_bits: Literal[16, 32] = Field(
            32, description="Bits of the weights in those layers; 16 is half the size and as fast."
        )
        calibration: Literal["MinMax", "Entropy", "Percentile"] = Field(
            "MinMax", description="How ranges are found, as in static quantization."
        )
        per_channel: bool = Field(False, description="One scale for each output channel of the int8 layers.")
        rows: int = Field(256, ge=1, le=512, description="Calibration rows to use, at most.")

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="no-gain") when no layer would be left to quantize."""
        from engine.optimize.float16 import store_half
        from engine.optimize.graph import static
        from engine.optimize.graph.calibration import Calibration
        from engine.optimize.graph.model import no_gain, open_model, save
        from engine.optimize.graph.weights import weights
        from engine.optimize.sensitivity import sensitivity

        calibration = Calibration(open_model(model), material, options.rows)
        layers = sensitivity(model, material, prune=False)
        count = round(options.keep * len(layers)) if options.keep < 1 else int(options.keep)
        count = max(1, count)
        if count >= len(layers):
            raise no_gain(f"{len(layers)} layers, so none is left to quantize when {count} stay in float")
        ranked = sorted(layers, key=lambda layer: -float(layer["quantized"]))
        kept = [layer["layer"] for layer in ranked[:count]]
        how = static.Static(method=options.calibration, per_channel=options.per_channel, excluded=kept)
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder, "made.onnx")
            notes = static.quantize(model, made, calibration, how, self.label)
            variant = open_model(made)
            if options.kept_bits == 16:
                store_half(variant, weights(variant))
            save(variant, target)
        worst = ", ".join(f"{layer['layer']} ({layer['quantized']:.2%})" for layer in ranked[:count][:10])
        return [*notes, f"Left in float for their error when quantized alone: {worst}."]
