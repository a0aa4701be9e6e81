"""From a model and a recipe's material to a trained file; what every optimizer that trains shares."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.optimize.material import Material
from engine.optimize.torch_graph.graph import TorchGraph
from engine.optimize.tuning import scores as heads
from engine.optimize.tuning import truth as truths
from engine.optimize.tuning.loop import Outcome, Plan, Tuning
from engine.optimize.tuning.loss import Loss
from engine.optimize.tuning.rows import Batch

_FEWEST_ROWS = 20
# Measured on digits, 3 epochs: halved networks recover most at AdamW's usual rate; one that was hardly harmed loses a
# row or so at that rate and none at a fifth.
_RATE, _GENTLE_RATE, _AGREEMENT = 1e-3, 2e-4, 0.97
# Statistics of fewer rows than this would be noise.
_FEWEST_FOR_STATISTICS = 8
# Weights below which threads wait for each other longer than they work.
_SMALL = 200_000


class TuningOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: int = Field(3, ge=1, le=200, description="Passes over the training rows.")
    seconds: float = Field(120, ge=1, le=7200, description="Training ends after this time at the latest.")
    learning_rate: float | None = Field(None, gt=0, le=1, description="Empty: chosen automatically.")
    distillation: float = Field(
        0.7, ge=0, le=1, description="Share of learning from the original model's scores; the rest is from the truth."
    )
    temperature: float = Field(2, ge=1, le=20, description="Softens the original's scores: shows its second choices.")
    batch_size: int = Field(32, ge=2, le=4096, description="Rows in one step.")
    held_out: float = Field(0.1, ge=0.02, le=0.5, description="Share of the training rows that chooses the best epoch.")
    augmentation: Literal["off", "noise", "shift"] = Field(
        "off", description="Change rows a little each time; shift is for images."
    )
    freeze_normalization: bool = Field(False, description="Keep the running statistics of batch normalization.")
    keep_zeros: bool = Field(True, description="Weights that pruning made zero stay zero.")


def tune(
    model: Path,
    target: Path,
    options: TuningOptions,
    material: Material,
    prepare: Callable[[TorchGraph, Batch], None] | None = None,
) -> list[str]:
    """Trains the weights of `model` towards the truth and material.original, writes the same graph to `target`.

    prepare: changes the graph before training, given training rows. If no epoch is better on the rows held out, the
    file is the one given. Notes for a person. The same seed and files give the same weights on one machine, unless
    the time runs out.
    EngineError: code "unsupported" for an operator that cannot be trained, "rows" for rows that do not fit,
    "no-gain" without weights, "training" for too few rows, "nan" when the original's scores are not finite.
    """
    # Threads that wait by spinning take the cores from each other when the machine has other work. Read at loading.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from engine.scan import onnx_structure

    rows = material.to_train()
    if len(rows) < _FEWEST_ROWS:
        raise EngineError(
            f"Training needs at least {_FEWEST_ROWS} rows; there are {len(rows)}.", field="training", code="training"
        )
    torch.manual_seed(material.seed)
    onnx_model = onnx_structure.parse(model.read_bytes())
    classes = truths.is_classification(material.task, rows.y)
    scores = heads.find(onnx_model.graph, classes)
    graph = TorchGraph(onnx_model, [scores.tensor])
    if not graph.weights:
        raise EngineError("This model has no weights that could be trained.", field="optimizer", code="no-gain")
    small = sum(each.numel() for each in graph.weights.values()) < _SMALL
    torch.set_num_threads(1 if small else truths.threads())
    train, held, loss, scores, fixed = _towards(graph, scores, material, options, classes)
    if prepare is not None:
        prepare(graph, train)
    live = not options.freeze_normalization and not 0 < fixed < _FEWEST_FOR_STATISTICS
    plan = Plan(
        epochs=options.epochs,
        seconds=options.seconds,
        learning_rate=options.learning_rate or _rate(graph, scores, train, classes, fixed),
        batch_size=max(options.batch_size, fixed),
        augmentation=options.augmentation,
        live=live,
        keep_zeros=options.keep_zeros,
        seed=material.seed,
        fixed=fixed,
    )
    outcome = Tuning(graph, scores, loss, plan).run(train, held)
    if outcome.best:
        graph.save(target)
    else:
        shutil.copyfile(model, target)
    return notes(outcome)


def _towards(
    graph: TorchGraph, scores: heads.Scores, material: Material, options: TuningOptions, classes: bool
) -> tuple[Batch, Batch, Loss, heads.Scores, int]:
    """Rows to train on, rows held out, the loss, the scores as they turned out to be, and the fixed batch or 0."""
    import numpy as np
    import torch

    from engine.evaluate import outputs
    from engine.formats import signature
    from engine.optimize.sampling import split
    from engine.scan import onnx_structure

    rows = material.to_train()
    described = signature.of_onnx(graph.model)
    strange = next((each for each in described["inputs"] if each["datatype"] == "BYTES"), None)
    if strange is not None:
        raise EngineError(f"The input '{strange['name'][:40]}' is text.", field="file", code="unsupported")
    first = described["inputs"][0]["shape"]
    fixed = max(0, first[0]) if first else 0
    held_rows, train_rows = split(rows, options.held_out, material.seed)
    if fixed > min(len(held_rows), len(train_rows)):
        raise EngineError(f"The model takes {fixed} rows at once, more than there are.", field="training", code="rows")
    original = onnx_structure.parse(material.original.read_bytes()) if material.original else graph.model
    theirs = heads.find(original.graph, classes)
    batches = []
    for part in (train_rows, held_rows):
        part = part.head(len(part) // fixed * fixed) if fixed else part
        feeds = outputs.feeds(described, part)
        values = truths.teacher_scores(original, theirs, feeds, fixed)
        theirs = heads.settled(theirs, values)
        teacher = theirs.logits(torch.from_numpy(np.asarray(values, dtype=np.float32)))
        truth = truths.targets(part.y, classes, teacher.shape[1], material.labels)
        batches.append(Batch({k: torch.from_numpy(v) for k, v in feeds.items()}, teacher, torch.from_numpy(truth)))
    if scores.kind == "probabilities":
        # What was no Softmax's in the original is none's in what was made of it.
        scores = heads.Scores(scores.tensor, theirs.kind)
    with torch.no_grad():
        width = scores.logits(graph.run(batches[0].take(slice(fixed or 2)).feeds)[0]).shape[1:]
    if width != batches[0].teacher.shape[1:]:
        raise EngineError("The model gives other scores than the original.", field="file", code="outputs")
    scale = 1.0 if classes else float(batches[0].teacher.var()) or 1.0
    return *batches, Loss(classes, options.distillation, options.temperature, scale), scores, fixed  # type: ignore[return-value]


def _rate(graph: TorchGraph, scores: heads.Scores, train: Batch, classes: bool, fixed: int) -> float:
    """By how often the graph still says what the original says, on a few hundred rows."""
    import torch

    sample = train.take(slice(fixed or 256))
    with torch.no_grad():
        student = scores.logits(graph.run(sample.feeds)[0])
    if classes:
        agreement = float((student.argmax(1) == sample.teacher.argmax(1)).double().mean())
    else:
        agreement = 1 - float((student - sample.teacher).square().mean() / sample.teacher.var().clamp_min(1e-12))
    return _GENTLE_RATE if agreement >= _AGREEMENT else _RATE


def notes(outcome: Outcome) -> list[str]:
    """What a person wants to know of it."""
    found = [
        f"{outcome.epochs} epochs in {outcome.seconds:.0f} s; on rows held out {outcome.before} before, "
        f"{outcome.after} after."
    ]
    if outcome.broken:
        found.append("The loss stopped being a number, so training ended early; a lower learning rate may help.")
    if not outcome.best:
        found.append("No epoch was better than the model given, which was kept.")
    return found
