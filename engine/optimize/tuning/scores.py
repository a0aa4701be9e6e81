"""Finds the scores in a graph, before their Softmax where it ends in one, and makes logits of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from engine.errors import EngineError

_FLOATS = {1, 10, 11}
_PASSING = {"Identity", "ZipMap", "Cast", "Dropout"}
_LEAST = 1e-7

Kind = Literal["logits", "binary", "probabilities", "numbers"]


@dataclass(frozen=True, slots=True)
class Scores:
    """tensor: the name to compute. kind: "logits" (n, k); "binary" (n, 1), the logit of the second of two classes;
    "probabilities" (n, k) or (n, 1) that no Softmax or Sigmoid was found behind; "numbers" that are predicted."""

    tensor: str
    kind: Kind

    def logits(self, values: Any) -> Any:
        """Logits (n, k), k > 1, of the tensor's values; numbers (n, k) as they are."""
        import torch

        values = values.reshape(len(values), -1)
        if self.kind == "probabilities":
            values = values.clamp(_LEAST, 1 - _LEAST)
            # log p are logits of p; of two classes with one score, the second has log p / (1 - p).
            values = values.log() if values.shape[1] > 1 else values.logit()
        if self.kind == "numbers" or values.shape[1] > 1:
            return values
        return torch.cat([torch.zeros_like(values), values], dim=1)


def find(graph: Any, classes: bool) -> Scores:
    """The first output of real numbers, followed backwards to what is best trained.

    EngineError(code="unsupported") when there is none.
    """
    name = next((each.name for each in graph.output if _is_real(each)), None)
    if name is None:
        raise EngineError("The model gives no scores that it could be trained by.", field="file", code="unsupported")
    makers = {output: node for node in graph.node for output in node.output}
    while name in makers and makers[name].op_type in _PASSING:
        name = makers[name].input[0]
    if not classes:
        return Scores(name, "numbers")
    maker = makers.get(name)
    kind = maker.op_type if maker is not None else ""
    if maker is not None and kind in ("Softmax", "LogSoftmax"):
        return Scores(maker.input[0], "logits")
    if maker is not None and kind == "Concat" and len(maker.input) == 2:
        # (1 - p, p), as scikit-learn's networks of two classes are written
        first, second = (makers.get(each) for each in maker.input)
        if first is not None and second is not None and (first.op_type, second.op_type) == ("Sub", "Sigmoid"):
            return Scores(second.input[0], "binary")
    return Scores(name, "probabilities")


def settled(scores: Scores, values: Any) -> Scores:
    """What no Softmax was found behind is probabilities if its values look so (they lie between 0 and 1 and, of
    several classes, add up to 1), else logits."""
    import numpy as np

    if scores.kind != "probabilities":
        return scores
    between = bool(np.all((values >= 0) & (values <= 1)))
    sums = values.reshape(len(values), -1).sum(axis=1)
    if between and (values[0].size == 1 or np.allclose(sums, 1, atol=1e-3)):
        return scores
    return Scores(scores.tensor, "binary" if values[0].size == 1 else "logits")


def _is_real(output: Any) -> bool:
    """A tensor of real numbers, or a sequence of maps (ZipMap) whose values are."""
    kind = output.type
    if kind.WhichOneof("value") == "sequence_type":
        return bool(kind.sequence_type.elem_type.WhichOneof("value") == "map_type")
    return kind.tensor_type.elem_type in _FLOATS
