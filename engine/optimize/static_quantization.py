"""Static int8: weights and activations are 8-bit integers, with ranges measured on calibration rows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.optimize.base import CALIBRATION
from engine.optimize.material import Material


class StaticQuantization:
    """The fastest for convolutions on CPUs. The formulas are with `engine.optimize.graph.static.quantize`."""

    name = "static-quantization"
    label = "Static int8 quantization"
    family = "quantization"
    needs = CALIBRATION
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        form: Literal["QDQ", "QOperator"] = Field(
            "QDQ", description="QDQ: standard operators that runtimes fuse themselves. QOperator: fused in the file."
        )
        calibration: Literal["MinMax", "Entropy", "Percentile"] = Field(
            "MinMax",
            description="How ranges are found: the extremes, the least loss of information (Kullback-Leibler), or the "
            "values that 99.999 % stay within.",
        )
        types: Literal["U8S8", "U8U8", "S8S8"] = Field(
            "U8S8", description="Activations and weights, unsigned or signed. On x86 CPUs only U8S8 and U8U8 are fast."
        )
        per_channel: bool = Field(
            False, description="One scale for each output channel: nearer to the original, slower for small matrices."
        )
        reduce_range: bool = Field(False, description="Weights of 7 bits, for CPUs without VNNI.")
        operators: Literal["all", "convolutions", "matrices"] = Field(
            "all", description="What is quantized: convolutions, matrix multiplications, or both."
        )
        excluded: list[str] = Field([], max_length=1000, description="Names of nodes that stay in float32.")
        rows: int = Field(256, ge=1, le=512, description="Calibration rows to use, at most.")

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError: code "calibration" without usable rows, "no-gain" when there is nothing to quantize."""
        from engine.optimize.graph import static
        from engine.optimize.graph.calibration import Calibration
        from engine.optimize.graph.model import open_model

        chosen = {
            "all": static.CONVOLUTIONS + static.MATRICES,
            "convolutions": static.CONVOLUTIONS,
            "matrices": static.MATRICES,
        }
        calibration = Calibration(open_model(model), material, options.rows)
        how = static.Static(
            types=options.types,
            method=options.calibration,
            form=options.form,
            per_channel=options.per_channel,
            reduce_range=options.reduce_range,
            operators=chosen[options.operators],
            excluded=options.excluded,
        )
        return static.quantize(model, target, calibration, how, self.label)
