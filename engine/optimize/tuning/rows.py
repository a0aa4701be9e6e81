"""Batches of rows, as torch tensors, changed a little where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from engine.errors import EngineError

Augmentation = Literal["off", "noise", "shift"]


@dataclass(frozen=True, slots=True)
class Batch:
    feeds: dict[str, Any]
    teacher: Any
    truth: Any

    def take(self, which: Any) -> Batch:
        return Batch({name: values[which] for name, values in self.feeds.items()}, self.teacher[which],
                     self.truth[which])  # fmt: skip

    def __len__(self) -> int:
        return len(self.truth)


def shuffled(rows: Batch, size: int, generator: Any) -> Iterator[Batch]:
    """All rows in random order, `size` at a time. A last batch of less than half joins no one: its statistics would
    be poor, and other rows are left out next time."""
    import torch

    order = torch.randperm(len(rows), generator=generator)
    for start in range(0, len(rows), size):
        part = order[start : start + size]
        if len(part) >= max(2, size // 2) or start == 0:
            yield rows.take(part)


def changed(batch: Batch, how: Augmentation, generator: Any) -> Batch:
    """noise: a twentieth of each input's deviation. shift: images by up to an eighth of their side, zeros come in;
    the teacher's scores stay those of the row as it was."""
    import torch

    if how == "off":
        return batch
    feeds = {}
    for name, values in batch.feeds.items():
        if not values.is_floating_point():
            feeds[name] = values
        elif how == "noise":
            noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
            feeds[name] = values + 0.05 * values.std() * noise
        else:
            feeds[name] = _shifted(name, values, generator)
    return Batch(feeds, batch.teacher, batch.truth)


def _shifted(name: str, values: Any, generator: Any) -> Any:
    """One shift for each image: by indices into the image with a border of zeros."""
    import torch

    if values.ndim != 4:
        raise EngineError(
            f"Shifting needs images; '{name[:40]}' has the shape {list(values.shape[1:])}.",
            field="options.augmentation",
            code="options",
        )
    count, _, height, width = values.shape
    # Images have few channels, which come first or last; the other two dimensions are shifted.
    last = width <= 4 < height
    if last:
        values = values.permute(0, 3, 1, 2)
        height, width = values.shape[2:]
    most = max(1, min(height, width) // 8)
    moves = torch.randint(0, 2 * most + 1, (2, count), generator=generator)
    framed = torch.nn.functional.pad(values, (most,) * 4)
    down = (moves[0, :, None] + torch.arange(height))[:, :, None]
    right = (moves[1, :, None] + torch.arange(width))[:, None, :]
    result = framed[torch.arange(count)[:, None, None], :, down, right]
    return result if last else result.permute(0, 3, 1, 2)
