"""What a graph is trained towards: the truth of the rows, and the scores of the model that a recipe began with."""

from __future__ import annotations

from typing import Any

from engine.errors import EngineError
from engine.evaluate.outputs import same_words
from engine.optimize.tuning.scores import Scores

_BATCH = 256


def is_classification(task: str, y: Any) -> bool:
    """By the task's name; without one, text and whole numbers are classes."""
    if "classification" in task or "regression" in task:
        return "classification" in task
    return y.dtype.kind in "OiubU"


def targets(y: Any, classes: bool, width: int, labels: list[Any] | None) -> Any:
    """Class indices (n,) int64, in the order of the scores, or numbers (n, 1) float32.

    labels: class names in the order of the scores; without them they are 0, 1, ..., or the sorted values of a truth
    of texts, as in engine.evaluate.quality. EngineError(field="target") for a truth that does not fit.
    """
    import numpy as np

    if not classes:
        if y.dtype.kind not in "iuf" or width != 1:
            raise _unfit("The target column is not numeric." if width == 1 else f"The model gives {width} numbers.")
        return y.astype(np.float32).reshape(-1, 1)
    words = same_words(y)
    if labels is None:
        labels = np.unique(y).tolist() if y.dtype == object else list(range(width))
    if len(labels) != width:
        raise _unfit(f"The model gives {width} scores for each row, and there are {len(labels)} classes.")
    places = {word: place for place, word in enumerate(same_words(np.asarray(labels, dtype=object).tolist()))}
    strange = set(words) - set(places)
    if strange:
        raise _unfit(f"The target '{min(strange)[:40]}' is none of the model's {width} classes.")
    return np.array([places[word] for word in words], dtype=np.int64)


def teacher_scores(model: Any, scores: Scores, feeds: dict[str, Any], size: int) -> Any:
    """The values (n, ...) of the tensor `scores` of the ONNX model, for all rows, by ONNX Runtime.

    size: rows in a call, for a model with a fixed batch; 0 for any. EngineError(field="rows") for rows that it
    does not take.
    """
    import numpy as np
    import onnx

    from engine.scan import onnx_run

    if all(output.name != scores.tensor for output in model.graph.output):
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(scores.tensor))
    session = onnx_run.session(model.SerializeToString(), threads())
    count, step = len(next(iter(feeds.values()))), size or _BATCH
    parts = []
    for start in range(0, count, step):
        part = {name: values[start : start + step] for name, values in feeds.items()}
        try:
            parts.append(session.run([scores.tensor], part)[0])
        except Exception as error:
            raise EngineError(
                f"The rows do not fit the model: {str(error)[:200]}", field="rows", code="rows"
            ) from error
    found = np.concatenate(parts)
    if len(found) != count:
        raise EngineError("The model does not give scores for each row.", field="file", code="unsupported")
    if not np.isfinite(found).all():
        raise EngineError("The model's scores of the training rows are not finite.", field="training", code="nan")
    return found


def threads() -> int:
    """Cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0))


def _unfit(message: str) -> EngineError:
    return EngineError(message, field="target", code="rows")
