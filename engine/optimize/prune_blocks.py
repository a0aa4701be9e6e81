"""Pruning in depth: whole residual blocks leave, so a call runs through fewer layers."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from engine.optimize.base import CALIBRATION
from engine.optimize.material import Material

_SECONDS = 30.0


class PruneBlocks:
    """Where a network adds a branch to what passes by it (He et al., "Deep Residual Learning for Image Recognition",
    CVPR 2016), it still works without the branch (Veit et al., "Residual Networks Behave Like Ensembles of Relatively
    Shallow Networks", NIPS 2016), and fine-tuning repairs the rest. What a call costs for each layer however small,
    and what removing channels leaves, goes with it."""

    name = "prune-blocks"
    label = "Prune residual blocks"
    family = "pruning"
    needs = CALIBRATION
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        amount: float = Field(0.25, gt=0, le=1, description="Share of the residual blocks to remove; one at least.")

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """The blocks leave one by one, each time the one whose absence changes the scores of the calibration rows
        least. EngineError(code="no-gain") for a model without residual blocks."""
        import onnx

        from engine.optimize.graph.blocks import Blocks
        from engine.optimize.graph.model import no_gain
        from engine.optimize.graph.probes import Probes

        blocks = Blocks(onnx.load(str(model), load_external_data=False))
        total = len(blocks.all)
        if not total:
            raise no_gain("no residual blocks that could be left out")
        count = max(1, round(options.amount * total))
        probes = Probes(blocks.model, material, _SECONDS, count * total - count * (count - 1) // 2)
        gone: set[str] = set()
        for _ in range(count):
            left = [block for block in blocks.all if block.out not in gone]
            least = min(left, key=lambda block: probes.error(blocks.without({*gone, block.out}))[0])
            gone.add(least.out)
        onnx.save(blocks.without(gone), str(target))
        named = ", ".join(block.name for block in blocks.all if block.out in gone)
        layers = sum(block.layers for block in blocks.all if block.out in gone)
        return [f"{count} of {total} residual blocks removed, with {layers} layers: {named}."]
