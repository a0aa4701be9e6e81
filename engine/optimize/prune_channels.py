"""Structured pruning by weights: whole channels leave, so the model is smaller and faster everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from engine.optimize.base import NOTHING
from engine.optimize.graph.options import ChannelOptions
from engine.optimize.material import Material


class PruneChannels:
    """Needs no rows; with calibration rows it gives the next layers their mean and deviation back."""

    name = "prune-channels"
    label = "Prune channels by weight"
    family = "pruning"
    needs = NOTHING
    environment = None

    class Options(ChannelOptions):
        criterion: Literal["magnitude", "group"] = Field(
            "magnitude",
            description="Which channels matter: by the weights that give them, or also by those that read them.",
        )
        compensate: bool = Field(
            True, description="Give the next layers their mean and deviation back (with calibration rows only)."
        )

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="no-gain") when there are no channels to remove."""
        import onnx

        from engine.optimize.graph.choose import by_filters
        from engine.optimize.graph.refit import Repair
        from engine.optimize.graph.structured import chosen, opened, summary

        channels, groups = opened(model, options.exclude)
        scores = by_filters(channels, groups, readers=options.criterion == "group")
        removed = chosen(channels, groups, scores, options)
        pruned = channels.without(removed)
        notes = [summary(channels, groups, removed)]
        if options.compensate and material.calibration is not None:
            count = Repair(channels, pruned, removed, material.calibration, material.seed).compensate()
            notes.append(f"Mean and deviation of {count} layers are those of before.")
        onnx.save(pruned, str(target))
        return notes
