"""Structured pruning by what channels do on real rows, and repair of the layers behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from engine.optimize.base import CALIBRATION
from engine.optimize.graph.options import ChannelOptions
from engine.optimize.material import Material


class PruneChannelsByActivation:
    """Rescues most of the accuracy without training: the following layers are fitted anew to calibration rows."""

    name = "prune-channels-by-activation"
    label = "Prune channels by activation"
    family = "pruning"
    needs = CALIBRATION
    environment = None

    class Options(ChannelOptions):
        criterion: Literal["activation", "apoz", "contribution", "magnitude"] = Field(
            "contribution",
            description="Which channels matter: those with a large mean activation, those that are seldom zero (APoZ), "
            "those whose changes reach the next layers, or those with large weights.",
        )
        compensate: bool = Field(
            True, description="Give the next layers their mean and deviation back, where they are not fitted anew."
        )
        reconstruct: bool = Field(
            True, description="Fit the weights of the next layers anew, so that they give what they gave before."
        )

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="no-gain") when there are no channels to remove."""
        import onnx

        from engine.optimize.graph.activations import Statistics, by_activation
        from engine.optimize.graph.choose import by_filters
        from engine.optimize.graph.refit import Repair
        from engine.optimize.graph.structured import chosen, opened, summary

        rows = material.to_calibrate()
        channels, groups = opened(model, options.exclude)
        # Bounded memory: statistics are sums, taken batch by batch.
        statistics = Statistics(channels.model, channels.walk.layers, rows)
        if options.criterion == "magnitude":
            scores = by_filters(channels, groups)
        else:
            scores = by_activation(channels, groups, statistics, options.criterion)
        removed = chosen(channels, groups, scores, options)
        pruned = channels.without(removed)
        notes = [summary(channels, groups, removed)]
        repair = Repair(channels, pruned, removed, rows, material.seed)
        if options.reconstruct:
            fitted, rest = repair.refit()
            notes.append(
                f"{fitted} layers fitted to {len(rows)} rows"
                + (f", {rest} by mean and deviation only." if rest else ".")
            )
        elif options.compensate:
            notes.append(f"Mean and deviation of {repair.compensate()} layers are those of before.")
        onnx.save(pruned, str(target))
        return notes
