"""A PMML document as a model: its runs happen in the scorer, everything else is as with a model of our own.

Inputs are columns [N]: numbers FP64 (NaN is a missing value), truth values BOOL, everything else BYTES ("" is a missing
value). An input that is left out is missing in every row. Outputs are what jpmml-evaluator gives, columns [N] as
well: targets first, then output fields; no result is NaN or "".
"""

from __future__ import annotations

import time
import weakref
from typing import Any

import numpy as np

from serving.batching import timed
from serving.model import Model, ModelError, Tensor
from serving.protocol.datatypes import BY_NAME
from serving.protocol.errors import BadInput, ServingError
from serving.scorer import Scorer

_RUNS = 5
_ENOUGH_S = 0.2
_ROWS = 64


class PmmlModel(Model):
    """A document in the scorer. `run` may be called from any thread; it waits for Java."""

    platform = "pmml"
    backend = "jpmml-evaluator"

    def __init__(self, scorer: Scorer, sha256: str, document: bytes) -> None:
        """Load it there. Raises ModelError."""
        told = scorer.load(sha256, document)
        weakref.finalize(self, scorer.release, sha256)
        self._scorer = scorer
        self._name = sha256
        inputs = tuple(Tensor(f["name"], BY_NAME[f["datatype"]], (-1,), optional=True) for f in told["inputs"])
        outputs = tuple(Tensor(f["name"], BY_NAME[f["datatype"]], (-1,)) for f in told["outputs"])
        self._examples = {f["name"]: f["example"] for f in told["inputs"] if f["example"] is not None}
        self._describe(inputs, outputs, len(document))
        self.memory_bytes = int(told["memory_bytes"])
        self.compute = scorer.compute

    @property
    def well(self) -> bool:
        """Whether the scorer is there."""
        return self._scorer.up

    def run(self, names: list[str], feeds: dict[str, np.ndarray], options: Any = None) -> list[np.ndarray]:
        """Outputs in the order of `names`. Raises BadInput, ModelFailure, and RuntimeError where the model fails."""
        rows = {len(array) for array in feeds.values()}
        if len(rows) != 1:
            raise BadInput("the inputs must have the same number of rows" if rows else "there must be an input")
        (count,) = rows
        columns = {name: _column(array) for name, array in feeds.items()}
        values = self._scorer.score(self._name, columns, count)
        return [_array(self.output_by_name[name], values[name]) for name in names]

    def warm(self) -> str:
        """Run rows of values that the document itself calls valid, and measure. Returns why it could not, or "".

        Rows of one document do not know of each other: whether they share a run is a question of time alone."""
        feeds = {name: _array(self.input_by_name[name], [value] * _ROWS) for name, value in self._examples.items()}
        if not feeds:
            return "not warmed: the document tells no value of any field"
        one = {name: array[:1] for name, array in feeds.items()}
        times: list[float] = []
        try:
            while len(times) < _RUNS and sum(times) < _ENOUGH_S:
                start = time.perf_counter()
                self.run(self.output_names, one)
                times.append(time.perf_counter() - start)
            self.cost_us = min(times) * 1e6
            self.batching = timed(self, feeds, _ROWS)
        except ServingError as error:
            if not self.well:
                raise ModelError("the JVM scorer ended in a trial run of this model") from error
            return f"not warmed: {error.text}"
        except RuntimeError as error:
            return f"not warmed: {error}"
        return ""


def _column(array: np.ndarray) -> list[Any]:
    values = array.tolist()
    if array.dtype == object:
        return [value or None for value in values]
    return [None if value != value else value for value in values] if array.dtype.kind == "f" else values


def _array(tensor: Tensor, values: list[Any]) -> np.ndarray:
    """Raises BadInput where there is no result and the datatype has no word for that."""
    kind = tensor.datatype
    if kind.name == "FP64":
        return np.array([np.nan if value is None else value for value in values], np.float64)
    if kind.name == "BYTES":
        array = np.empty(len(values), object)
        array[:] = ["" if value is None else value for value in values]
        return array
    if None in values:
        raise BadInput(f"row {values.index(None)}: the model gives no {tensor.name!r} for these inputs")
    return np.array(values, kind.dtype)
