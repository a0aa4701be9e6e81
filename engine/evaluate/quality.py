"""Quality of predictions against the truth, in numpy alone."""

from __future__ import annotations

from typing import Any

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs, same_words


def metrics(task: str, outputs: Outputs, y: Any, labels: list[Any] | None = None) -> dict[str, float]:
    """By the model's task: classification {"accuracy", "macro_f1"}, regression {"rmse", "mae", "r2"}, else {}.

    labels: class names in the order of the scores, for models that give scores only; without it they are
    0, 1, ... or, when the truth is text, its sorted values. EngineError(field="target") without a truth.
    """
    if "classification" not in task and "regression" not in task:
        return {}
    if y is None:
        raise EngineError("The data set has no target column.", field="target", code="rows")
    if "regression" in task:
        return _regression(outputs, y)
    return _classification(predicted_labels(outputs, y, labels), same_words(y))


def predicted_labels(outputs: Outputs, y: Any, labels: list[Any] | None) -> Any:
    """The classes (n,) as text, of labels or of the strongest score. EngineError(field="target") for more scores than
    there are names."""
    import numpy as np

    if outputs.labels is not None:
        return same_words(outputs.labels)
    assert outputs.scores is not None
    if outputs.scores.shape[1] == 1:
        indices = (outputs.scores[:, 0] > 0.5).astype(int)
    else:
        indices = outputs.scores.argmax(axis=1)
    names = labels if labels is not None else (sorted(set(y)) if y.dtype == object else None)
    if names is None:
        return same_words(indices)
    if len(names) < int(indices.max()) + 1:
        raise EngineError(f"The model has more classes than the {len(names)} known.", field="target", code="rows")
    return same_words(np.asarray(names, dtype=object)[indices].tolist())


def _classification(predicted: Any, truth: Any) -> dict[str, float]:
    """macro F1: the mean over all classes, in the truth or predicted, of 2TP / (2TP + FP + FN)."""
    import numpy as np

    scores = []
    for name in np.union1d(predicted, truth):
        hit = np.sum((predicted == name) & (truth == name))
        wrong = np.sum((predicted == name) != (truth == name))
        scores.append(2 * hit / (2 * hit + wrong))
    return {"accuracy": float(np.mean(predicted == truth)), "macro_f1": float(np.mean(scores))}


def predicted_numbers(outputs: Outputs, truth: Any) -> Any:
    """One number (n,) for each row. EngineError(field="target") when there are more."""
    import numpy as np

    values = outputs.scores if outputs.scores is not None else outputs.labels
    predicted = np.asarray(values, dtype=float)
    if predicted.size != truth.size:
        raise EngineError("The model gives more than one number for each row.", field="target", code="rows")
    return predicted.reshape(-1)


def _regression(outputs: Outputs, y: Any) -> dict[str, float]:
    """r2 = 1 - SS_res / SS_tot; 0 when the truth is constant."""
    import numpy as np

    try:
        truth = np.asarray(y, dtype=float)
        error_of = predicted_numbers(outputs, truth) - truth
    except ValueError as error:
        raise EngineError("The target column is not numeric.", field="target", code="rows") from error
    spread = float(np.sum((truth - truth.mean()) ** 2))
    return {
        "rmse": float(np.sqrt(np.mean(error_of**2))),
        "mae": float(np.mean(np.abs(error_of))),
        "r2": 1 - float(np.sum(error_of**2)) / spread if spread else 0.0,
    }
