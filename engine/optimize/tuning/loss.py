"""Losses of short training with a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Loss:
    """d teacher + (1 - d) truth, with d = distillation.

    Classes: truth is the cross-entropy with the label, teacher is T² KL(softmax(t / T) || softmax(s / T)) at the
    temperature T; T² keeps its gradients' size (Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural
    Network", section 2). Numbers: mean squared differences over `scale`, the variance of the teacher's numbers.
    """

    classes: bool
    distillation: float
    temperature: float
    scale: float = 1.0

    def __call__(self, student: Any, teacher: Any, truth: Any) -> Any:
        from torch.nn import functional as f

        share = self.distillation
        if not self.classes:
            loss = share * f.mse_loss(student, teacher) + (1 - share) * f.mse_loss(student, truth)
            return loss / self.scale
        heat = self.temperature
        kept = f.kl_div(
            (student / heat).log_softmax(1), (teacher / heat).log_softmax(1), reduction="batchmean", log_target=True
        )
        return share * heat**2 * kept + (1 - share) * f.cross_entropy(student, truth)
