"""The loop of short training: it never leaves a graph worse, on rows held out, than it was."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from engine.optimize.torch_graph.graph import TorchGraph
from engine.optimize.tuning.loss import Loss
from engine.optimize.tuning.rows import Augmentation, Batch, changed, shuffled
from engine.optimize.tuning.scores import Scores

_EVALUATED = 256
_DECAY = 1e-4
_NORM = 5.0
_WARM_UP = 0.1
# How far the clock may be ahead of the epochs before it sets the rate; below, equal seeds give equal weights.
_LATE = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """fixed: rows in a call where the graph takes no other number, else 0; gradients of such calls are added up.
    live: normalizations go by the batch and update their running statistics."""

    epochs: int
    seconds: float
    learning_rate: float
    batch_size: int
    augmentation: Augmentation
    live: bool
    keep_zeros: bool
    seed: int
    fixed: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """How a graph does on the rows held out. quality: accuracy, or the root of the mean squared error."""

    quality: float
    loss: float
    classes: bool

    def better(self, other: Held) -> bool:
        """Higher accuracy, then lower loss; numbers go by the loss alone."""
        if not math.isfinite(self.loss):
            return False
        mine, its = (self.quality, other.quality) if self.classes else (0.0, 0.0)
        return (mine, -self.loss) > (its, -other.loss)

    def __str__(self) -> str:
        return f"accuracy {self.quality:.2%}" if self.classes else f"RMSE {self.quality:.4g}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """best: the epoch that was kept, 0 for the graph as it was. broken: the loss was not finite, and training ended."""

    epochs: int
    seconds: float
    before: Held
    after: Held
    best: int
    broken: bool


class Tuning:
    """Trains `graph`, whose first wanted tensor is the one of `scores`."""

    def __init__(self, graph: TorchGraph, scores: Scores, loss: Loss, plan: Plan) -> None:
        import torch

        self.graph, self.scores, self.loss, self.plan = graph, scores, loss, plan
        self.random = torch.Generator().manual_seed(plan.seed)
        weights = list(graph.weights.values())
        # Scales and biases are few, and shrinking them only moves the layers' means.
        groups = [
            {"params": [each for each in weights if _is_matrix(each)], "weight_decay": _DECAY},
            {"params": [each for each in weights if not _is_matrix(each)], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=plan.learning_rate)
        self.masks = [(each, each.detach() != 0) for each in weights if _is_matrix(each)] if plan.keep_zeros else []

    def run(self, train: Batch, held: Batch) -> Outcome:
        started = time.monotonic()
        before = best = self.evaluate(held)
        kept, which, number, broken = self.graph.snapshot(), 0, 0, False
        for number in range(1, self.plan.epochs + 1):
            broken = not self._epoch(train, number - 1, started)
            now = self.evaluate(held)
            print(
                f"epoch {number}: held out {now}, loss {now.loss:.4g}, {time.monotonic() - started:.0f} s", flush=True
            )
            if not broken and now.better(best):
                best, which, kept = now, number, self.graph.snapshot()
            if broken or self._spent(started) >= 1:
                break
        self.graph.restore(kept)
        return Outcome(number, time.monotonic() - started, before, best, which, broken)

    def evaluate(self, rows: Batch) -> Held:
        import torch

        with torch.no_grad():
            step = self.plan.fixed or _EVALUATED
            # A rest that a fixed batch cannot take is left out, unless the first call is all there is.
            starts = [
                at for at in range(0, len(rows), step) if not self.plan.fixed or at + step <= len(rows) or at == 0
            ]
            parts = [rows.take(slice(at, at + step)) for at in starts]
            students = torch.cat([self._scores(part, training=False) for part in parts])
            seen = rows.take(slice(len(students)))
            loss = float(self.loss(students, seen.teacher, seen.truth))
            if self.loss.classes:
                quality = float((students.argmax(1) == seen.truth).double().mean())
            else:
                quality = float((students - seen.truth).square().mean().sqrt())
        return Held(quality, loss, self.loss.classes)

    def _scores(self, batch: Batch, training: bool) -> Any:
        return self.scores.logits(self.graph.run(batch.feeds, training=training)[0])

    def _spent(self, started: float) -> float:
        return (time.monotonic() - started) / self.plan.seconds

    def _epoch(self, train: Batch, done: int, started: float) -> bool:
        """False when the loss was not finite. The rate rises for a tenth of the way and falls as a cosine to nothing;
        the way is the epochs, or the time where that will clearly end sooner."""
        import torch

        size = self.plan.batch_size
        for number, batch in enumerate(shuffled(train, size, self.random)):
            epochs = (done + number * size / len(train)) / self.plan.epochs
            spent = self._spent(started)
            if spent >= 1:
                return True
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.learning_rate * _share(spent if spent > epochs + _LATE else epochs)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._backward(changed(batch, self.plan.augmentation, self.random))
            if not math.isfinite(loss):
                return False
            for weight, mask in self.masks:
                if weight.grad is not None:
                    weight.grad.mul_(mask)
            torch.nn.utils.clip_grad_norm_(list(self.graph.weights.values()), _NORM)
            self.optimizer.step()
        return True

    def _backward(self, batch: Batch) -> float:
        """Adds the batch's gradients; its loss."""
        step = self.plan.fixed or len(batch)
        total, calls = 0.0, max(1, len(batch) // step)
        for number in range(calls):
            part = batch.take(slice(number * step, (number + 1) * step))
            loss = self.loss(self._scores(part, self.plan.live), part.teacher, part.truth) / calls
            loss.backward()
            total += loss.item()
        return total


def _is_matrix(weight: Any) -> bool:
    """A bias may have dimensions of 1 besides its own (scikit-learn's have), and zeros that no pruning made."""
    return sum(size > 1 for size in weight.shape) > 1


def _share(way: float) -> float:
    """Of the learning rate, at `way` from 0 to 1."""
    if way < _WARM_UP:
        return 0.1 + 0.9 * way / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (way - _WARM_UP) / (1 - _WARM_UP)))
