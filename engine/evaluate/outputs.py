"""Feeds rows to an ONNX model and reads labels and scores from what any model gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.evaluate.rows import Rows
from engine.formats.signature import NUMPY, Signature

# Answers of more than this are quicker made again than fetched.
_MOST_KEPT = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Outputs:
    """labels: predicted classes (n,) or None. scores: float64 (n, k), class scores or predicted numbers, or None."""

    labels: Any | None
    scores: Any | None

    def __len__(self) -> int:
        return len(self.labels if self.labels is not None else self.scores)  # type: ignore[arg-type]


def feeds(signature: Signature, rows: Rows) -> dict[str, Any]:
    """{input: array} for all rows. EngineError(field="rows") when columns and inputs do not fit."""
    import numpy as np

    inputs = signature["inputs"]
    count = len(rows)
    if len(inputs) == 1 and (rows.matrix is not None or len(rows.columns) == 1):
        only = inputs[0]
        values = rows.matrix if rows.matrix is not None else rows.column(rows.columns[0]).reshape(count, 1)
        shape = [count, *only["shape"][1:]]
        open_dims = [i for i, size in enumerate(shape) if size < 0]
        if len(open_dims) > 1:
            shape = [count, *values.shape[1:]]
        try:
            return {only["name"]: values.reshape(shape).astype(NUMPY[only["datatype"]])}
        except (ValueError, TypeError) as error:
            raise _unfit(f"{values.shape[1]} columns do not fit the input of shape {only['shape'][1:]}.") from error
    arrays = {}
    for each in inputs:
        if each["name"] not in rows.columns:
            raise _unfit(f"There is no column '{each['name'][:60]}', which the model asks for.")
        shape = [count] if len(each["shape"]) == 1 else [count, 1]
        try:
            arrays[each["name"]] = np.asarray(rows.column(each["name"])).reshape(shape).astype(NUMPY[each["datatype"]])
        except (ValueError, TypeError) as error:
            raise _unfit(f"The column '{each['name'][:60]}' does not hold {each['datatype']} values.") from error
    return arrays


def run_all(session: Any, signature: Signature, rows: Rows, batch: int = 256) -> Outputs:
    """Outputs for all rows, in batches; a model with a fixed batch size gets that size.

    A ZipMap's maps are compared class by class. Sequences of tensors have no entry for each row and are left out.
    EngineError(code="outputs") when that leaves nothing, or for maps that differ in their keys."""
    import numpy as np

    arrays = feeds(signature, rows)
    count = len(rows)
    fixed = signature["inputs"][0]["shape"][0] if signature["inputs"][0]["shape"] else -1
    size = fixed if fixed > 0 else batch
    parts: list[list[Any]] = []
    for start in range(0, count, size):
        part = {name: values[start : start + size] for name, values in arrays.items()}
        used = min(size, count - start)
        if fixed > 0 and used < fixed:
            part = {name: np.concatenate([v, np.repeat(v[-1:], fixed - used, axis=0)]) for name, v in part.items()}
        given = [each for each in session.run(None, part) if not _is_sequence(each)]
        parts.append([_array(each)[:used] for each in given])
    return of_arrays([np.concatenate(each) for each in zip(*parts, strict=True)])


def _is_sequence(output: Any) -> bool:
    return isinstance(output, list) and not (output and isinstance(output[0], dict))


def _array(output: Any) -> Any:
    """An output as one array. A classifier's ZipMap gives a map of class to probability for each row, in the
    classes' order."""
    import numpy as np

    if isinstance(output, list):
        classes = sorted(output[0])
        if any(row.keys() != output[0].keys() for row in output):
            raise EngineError(
                "The model gives maps whose keys differ from row to row; only a ZipMap's, with every class in each, "
                "can be compared. Export it with zipmap off.",
                code="outputs",
            )
        return np.array([[row[name] for name in classes] for row in output])
    return np.asarray(output)


def of_arrays(arrays: list[Any]) -> Outputs:
    """Labels are the first whole-number, boolean or text output; scores the first one of real numbers."""
    import numpy as np

    labels = scores = None
    for array in arrays:
        if array.dtype.kind in "iubOUS" and labels is None and array.size == len(array):
            labels = array.reshape(-1)
        elif array.dtype.kind == "f" and scores is None:
            scores = np.asarray(array, dtype=np.float64).reshape(len(array), -1)
    if labels is None and scores is None:
        raise EngineError(
            "The model gives no output that can be compared: no label or number for each row. Sequences of tensors "
            "and texts are not compared.",
            code="outputs",
        )
    return Outputs(labels, scores)


def save(found: Outputs, file: Path) -> bool:
    """Writes answers as an npz file that `read` gives back with the same labels and scores; False for more than 256
    MB, of which there is no file."""
    import numpy as np

    arrays = {}
    if found.labels is not None:
        arrays["labels"] = found.labels.astype(str) if found.labels.dtype == object else found.labels
    if found.scores is not None:
        # Most models answer in 32 bits: half the file, and nothing lost.
        narrow = found.scores.astype(np.float32)
        exact = np.array_equal(narrow.astype(np.float64), found.scores, equal_nan=True)
        arrays["scores"] = narrow if exact else found.scores
    if sum(array.nbytes for array in arrays.values()) > _MOST_KEPT:
        return False
    np.savez(file, **arrays)
    return True


def read(file: Path, rows: int) -> Outputs:
    """What `save` wrote. EngineError(field="answers") when it is not of so many rows."""
    import numpy as np

    with np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    scores = arrays.get("scores")
    found = Outputs(arrays.get("labels"), None if scores is None else scores.astype(np.float64))
    if any(len(array) != rows for array in arrays.values()):
        raise EngineError(f"The kept answers are not those of {rows} rows.", field="answers", code="rows")
    return found


def same_words(values: Any) -> Any:
    """Labels as text, so that 3, 3.0 and "3" are the same class."""
    import numpy as np

    values = np.asarray(values)
    if values.dtype.kind == "f" and np.all(values == np.floor(values)):
        values = values.astype(np.int64)
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    return values.astype(str)


def _unfit(message: str) -> EngineError:
    return EngineError(message, field="rows", code="rows")
