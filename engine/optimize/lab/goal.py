"""What a user asks of a search."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Column = Annotated[str, Field(min_length=1, max_length=100)]


class Goal(BaseModel):
    """Budgets left out are not held against a variant; the form is made from this."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_loss: float = Field(
        1.0,
        ge=0,
        le=100,
        title="Most that may be lost",
        description="Percentage points of accuracy, or percent of the error (RMSE) for numbers.",
    )
    max_slice_loss: float | None = Field(
        None,
        ge=0,
        le=100,
        title="Most that one class may lose",
        description="Percentage points of any single class or group; empty: five times what may be lost in all.",
    )
    slices: tuple[Column, ...] = Field(
        (),
        max_length=3,
        title="Groups to guard",
        description="Up to three columns of the evaluation set, such as a site or an age: each of their values is "
        "guarded like a class, numbers by quarters. They need not be inputs of the model.",
    )
    sure: bool = Field(
        False,
        title="Only what is proven",
        description="Recommend only what keeps the promise with 95 % confidence though it is the best of many.",
    )
    prefer: Literal["latency", "size", "balanced"] = Field(
        "latency", title="What matters", description="Among those that keep the promise: speed, size, or both."
    )
    latency_ms: float | None = Field(
        None, gt=0, title="Latency budget (ms)", description="Most for the p95 of one call on this device."
    )
    size_mb: float | None = Field(None, gt=0, title="Size budget (MB)", description="Most for the file.")
    memory_mb: float | None = Field(
        None, gt=0, title="Memory budget (MB)", description="Most for the peak of a process that serves it."
    )
    threads: int = Field(1, ge=1, le=256, title="Threads", description="As many as one call may use.")
    batch: int = Field(1, ge=1, le=4096, title="Rows of a call", description="As in production.")
    minutes: float = Field(10, gt=0, le=24 * 60, title="Minutes", description="When to stop looking.")
    trials: int = Field(40, ge=1, le=500, title="Trials", description="At most so many variants.")
    seed: int = Field(0, ge=0, le=2**31 - 1, title="Seed", description="The same seed tries the same things.")

    @model_validator(mode="after")
    def _each_column_once(self) -> Self:
        if len(set(self.slices)) < len(self.slices):
            raise ValueError("slices: name each column once.")
        return self

    @property
    def slice_loss(self) -> float:
        return self.max_slice_loss if self.max_slice_loss is not None else 5 * self.max_loss
