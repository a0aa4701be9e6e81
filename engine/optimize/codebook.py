"""Codebooks: each weight is the nearest of a few values that k-means found in its tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.optimize.base import NOTHING
from engine.optimize.material import Material

_ROUNDS = 50


class Codebook:
    """Weight sharing of Han, Mao and Dally, "Deep Compression" (ICLR 2016), section 3, without its fine-tuning."""

    name = "codebook"
    label = "Codebook (k-means)"
    family = "quantization"
    needs = NOTHING
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        entries: Literal[16, 32, 64, 128, 256] = Field(
            16, description="Values in a codebook. 16 take 4 bits for each weight, more take 8."
        )
        groups: int = Field(
            1, ge=1, le=64, description="Codebooks for each tensor, one for each stretch of its output channels."
        )

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="no-gain") without weights that are larger than their codebooks."""
        import numpy as np

        from engine.optimize.graph import codes

        def encode(rows: Any) -> codes.Coded:
            most = max(1, rows.size // (4 * options.entries))
            count = min(options.groups, len(rows), most)
            group = codes.groups(len(rows), count)
            parts = [rows[group == each] for each in range(count)]
            books = [kmeans(part.ravel(), options.entries) for part in parts]
            coded = [codes.nearest(part, book) for part, book in zip(parts, books, strict=True)]
            return codes.Coded(np.concatenate(coded), np.stack(books))

        # A codebook has to save more than it costs.
        return [codes.code_all(model, target, encode, least=4 * options.entries)]


def kmeans(values: Any, entries: int) -> Any:
    """Ascending centres (entries,) float32 of one-dimensional k-means, always the same for the same values.

    Lloyd's algorithm (1957; IEEE Trans. Inf. Theory 28, 1982) on sorted data: clusters are stretches of the sorted
    values, bounded by the midpoints of neighbouring centres, so a round is one binary search of the bounds and
    differences of the running sum: c_j = (S[b_j+1] - S[b_j]) / (b_j+1 - b_j). It starts from an even mix of quantiles
    and equal steps between least and largest, which keeps centres both where weights are dense and at their ends. An
    empty cluster keeps its centre.
    """
    import numpy as np

    ordered = np.sort(np.asarray(values, np.float64))
    running = np.concatenate([[0.0], np.cumsum(ordered)])
    places = (np.arange(entries) + 0.5) / entries
    steps = ordered[0] + places * (ordered[-1] - ordered[0])
    centres = (np.quantile(ordered, places) + steps) / 2
    for _ in range(_ROUNDS):
        bounds = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        bounds = np.concatenate([[0], bounds, [len(ordered)]])
        counts = np.diff(bounds)
        moved = np.where(counts > 0, np.diff(running[bounds]) / np.maximum(counts, 1), centres)
        if np.allclose(moved, centres, rtol=0, atol=1e-7 * (ordered[-1] - ordered[0])):
            break
        centres = moved
    return centres.astype(np.float32)
