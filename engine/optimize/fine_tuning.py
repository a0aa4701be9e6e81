"""Fine-tuning: the weights of an ONNX graph learn again for a short while, from the truth and from the original."""

from __future__ import annotations

from pathlib import Path

from engine.optimize.base import TRAINING
from engine.optimize.material import Material
from engine.optimize.tuning.session import TuningOptions, tune


class FineTuning:
    """Wins back what pruning lost, for any framework's model: the ONNX graph itself is trained, and stays the same.

    Distillation as in Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network".
    """

    name = "fine-tuning"
    label = "Fine-tuning with distillation"
    family = "training"
    needs = TRAINING
    environment = "torch"

    class Options(TuningOptions):
        pass

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError as `tune` says."""
        return tune(model, target, options, material)
