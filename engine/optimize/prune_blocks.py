"""Pruning in depth: whole residual blocks leave, so a call runs through fewer layers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.optimize.base import CALIBRATION
from engine.optimize.material import Material

if TYPE_CHECKING:
    from engine.optimize.graph.probes import Probes

_SECONDS = 30.0
# Of more blocks than this, looking at the rest after each one that left would take too long.
_LOOKED_AT_AGAIN = 16


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
        least; of more than 16 blocks all are looked at once only, alone. EngineError(code="no-gain") for a model
        without residual blocks; (code="control-flow") for If, Loop and Scan."""
        import onnx

        from engine.optimize.graph.blocks import Blocks
        from engine.optimize.graph.model import no_gain, open_model, refuse_control_flow
        from engine.optimize.graph.probes import Probes

        opened = open_model(model)
        refuse_control_flow(opened, "Pruning of residual blocks")
        blocks = Blocks(opened)
        total = len(blocks.all)
        if not total:
            raise no_gain("no residual blocks that could be left out")
        count = max(1, round(options.amount * total))
        turns = count if total <= _LOOKED_AT_AGAIN else 1
        probes = Probes(blocks.model, material, _SECONDS, turns * total - turns * (turns - 1) // 2)
        gone: list[str] = []
        for _ in range(turns):
            left = [block.out for block in blocks.all if block.out not in gone]
            errors = {out: _error(probes, blocks.without([*gone, out])) for out in left}
            # Of those that break the model alike, the first.
            gone += sorted(left, key=errors.__getitem__)[: count if turns == 1 else 1]
        onnx.save(blocks.without(gone), str(target))
        removed = [block for block in blocks.all if block.out in gone]
        named = ", ".join(block.name for block in removed)
        layers = sum(block.layers for block in removed)
        return [f"{count} of {total} residual blocks removed, with {layers} layers: {named}."]


def _error(probes: Probes, model: Any) -> float:
    """How much the scores change; infinite where there are none any more."""
    try:
        error = probes.error(model)[0]
    except EngineError as broken:
        print(f"not without it: {broken.message}")
        return math.inf
    return error if math.isfinite(error) else math.inf
