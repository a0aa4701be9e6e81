"""What is known of one variant that was tried, and of the model that all are compared with."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from engine.optimize.recipe import Recipe
from engine.sentence import Sentence

# Of fewer rows, one is too much of a share to guard it.
GUARDED_ROWS = 10


class Slice(BaseModel):
    """A part of the evaluation rows, a class or a value of a column, with its share of right answers in percent, or
    its error; loss as in its Judgement. column: "" for a class."""

    column: str = ""
    name: str
    rows: int
    baseline: float
    value: float
    loss: float


class Judgement(BaseModel):
    """Quality beside the baseline on the same rows. loss is in the goal's unit: percentage points of accuracy, percent
    of the error, or percent of answers that differ (metric "agreement", where there is no truth).

    loss_upper: the loss is below it with 95 % confidence. p_value: of the hypothesis that neither is better.
    """

    metric: str
    baseline: float
    value: float
    loss: float
    loss_upper: float
    p_value: float | None = None
    rows: int
    slices: list[Slice] = []

    @property
    def worst(self) -> Slice | None:
        """The slice that lost most, of those with rows enough."""
        return max((one for one in self.slices if one.rows >= GUARDED_ROWS), key=lambda one: one.loss, default=None)


class Measured(BaseModel):
    """Cost on one hardware profile. ratio: the variant's time of a call by the baseline's, median of rounds by turns;
    below 1 is faster; low and high bound it with 95 % confidence."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    ratio: float = 1.0
    ratio_low: float = 1.0
    ratio_high: float = 1.0
    throughput: float | None = None
    size_bytes: int
    peak_memory_mb: float | None = None
    profile: dict[str, str | int | None] = {}

    @property
    def speedup(self) -> float:
        return 1 / self.ratio


class Trial(BaseModel):
    """state: measured; refused (quality alone ruled it out, its speed is not known); failed (no variant came of it)."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    why: Sentence = Sentence(text="")
    state: Literal["measured", "refused", "failed"]
    reason: str = ""
    judged: Judgement | None = None
    measured: Measured | None = None
    size_bytes: int | None = None
    seconds: float = 0.0

    @property
    def key(self) -> str:
        return self.recipe.key


class Survey(BaseModel):
    """What a look at a model's graph tells. Bytes are those of its weights."""

    parameters: int
    weight_bytes: int
    operators: dict[str, int]
    bytes_by_operator: dict[str, int]
    layers: list[dict[str, str | int]] = []
    control_flow: bool = False
    # Residual blocks that could be left out.
    blocks: int = 0
    opset: int = 0
    calibration: bool = False
    training: bool = False
    rows: int = 0

    def share(self, *operators: str) -> float:
        """Of the weights' bytes, the share in these operators."""
        return sum(self.bytes_by_operator.get(name, 0) for name in operators) / max(1, self.weight_bytes)
