"""Whether running requests of a model together helps: measured when it is loaded, not believed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from serving.model import Model, Tensor

SIZES = (2, 4, 8, 16, 32, 64)
# Trial inputs stay below so many bytes: they, and what the model makes of them, take memory that stays taken.
MAX_TRIAL = 1 << 20
# A shared run has to give so many times the rows per second of single ones, or it is not worth its delay.
WORTH = 1.25
# When this many rows gain nothing, more will not.
_HOPELESS = (4, 1.1)
# A model slower than this (microseconds) would make others wait for a shared run.
_SLOW_US = 25_000.0
# All measuring of one model takes no longer than about this (seconds): others are being served meanwhile.
_ENOUGH_S = 0.2
_ROUNDS = 3


@dataclass(frozen=True)
class Evidence:
    """What measuring said: `times` has (rows, microseconds) of runs worth sharing, fewest rows first; empty
    when none is. `why` is for people."""

    times: tuple[tuple[int, float], ...]
    why: str

    def most(self, limit: int, budget_ms: float) -> int:
        """Rows that may share a run within a limit and a time; 1 for never."""
        return max((rows for rows, micros in self.times if rows <= limit and micros <= budget_ms * 1000), default=1)


UNMEASURED = Evidence((), "not measured")


def measure(model: Model, options: Any = None) -> Evidence:
    """Run a loaded model with 1, 2, 4 … random rows; `options` may end it. Never raises: whatever goes wrong is a
    reason against."""
    reason = _unfit(model)
    if reason:
        return Evidence((), reason)
    rng = np.random.default_rng(0)
    try:
        row = sum(_rows(tensor, 1, rng).nbytes for tensor in model.inputs)
        most = min(SIZES[-1], max(3, MAX_TRIAL // max(1, row)))
        rows = {tensor.name: _rows(tensor, most, rng) for tensor in model.inputs}
        if not _independent(model, rows, options):
            return Evidence((), "off: rows of one run influence each other")
        return timed(model, rows, most, options)
    except Exception as error:
        return Evidence((), f"off: a trial run failed ({type(error).__name__})")


def _unfit(model: Model) -> str:
    if not model.plain:
        return "off: it has sequences, maps or optional tensors"
    if model.cost_us is None:
        return "off: a trial run failed"
    if model.cost_us > _SLOW_US:
        return "off: a single run takes long enough"
    for tensor in (*model.inputs, *model.outputs):
        if tensor.datatype.name in ("BYTES", "BF16"):
            return f"off: {tensor.name!r} is {tensor.datatype.name}"
        if tensor.shape is None or not tensor.shape or tensor.shape[0] != -1:
            return f"off: the first dimension of {tensor.name!r} is fixed"
    return ""


def _rows(tensor: Tensor, count: int, rng: np.random.Generator) -> np.ndarray:
    shape = (count, *(1 if d < 0 else d for d in (tensor.shape or ())[1:]))
    dtype = tensor.datatype.dtype
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    # Small whole numbers are the safest guess for indices and tokens.
    return rng.integers(0, 2, shape).astype(dtype)


def _independent(model: Model, feeds: dict[str, np.ndarray], options: Any) -> bool:
    """Whether three rows run together give what each gives alone, up to rounding."""
    together = model.run(model.output_names, {name: array[:3] for name, array in feeds.items()}, options)
    for row in range(3):
        alone = model.run(model.output_names, {name: array[row : row + 1] for name, array in feeds.items()}, options)
        for one, all_ in zip(alone, together, strict=True):
            if len(all_) != 3 or not np.allclose(one[0], all_[row], rtol=1e-3, atol=1e-4, equal_nan=True):
                return False
    return True


def timed(model: Model, feeds: dict[str, np.ndarray], most: int, options: Any = None) -> Evidence:
    """What running 1, 2, 4 … up to `most` of the rows together gains. Raises what the model does."""
    began = time.perf_counter()
    best: dict[int, float] = {}
    sizes = [1, *(size for size in SIZES if size <= max(most, 2))]
    for _ in range(_ROUNDS):
        for rows in sizes:
            if rows > 1 and _pointless(best, rows):
                break
            part = {name: array[:rows] for name, array in feeds.items()}
            start = time.perf_counter()
            model.run(model.output_names, part, options)
            taken = time.perf_counter() - start
            best[rows] = min(taken, best.get(rows, taken))
        if time.perf_counter() - began > _ENOUGH_S:
            break
    rates = {rows: rows / taken for rows, taken in best.items()}
    gain, at = max((rate / rates[1], rows) for rows, rate in rates.items())
    if gain < WORTH:
        return Evidence((), f"off: {at} rows together give {gain:.2f} times the rows per second of one")
    worth = tuple((rows, best[rows] * 1e6) for rows in sorted(rates) if rows > 1 and rates[rows] >= WORTH * rates[1])
    return Evidence(worth, f"on: {at} rows together give {gain:.2f} times the rows per second of one")


def _pointless(best: dict[int, float], rows: int) -> bool:
    """Whether a trial with so many rows would take all the time there is, or fewer have shown no gain."""
    few, gain = _HOPELESS
    tried = best.get(few)
    return best[1] * rows > _ENOUGH_S or (rows > few and tried is not None and few / tried < gain / best[1])
