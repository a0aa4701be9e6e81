"""The scatter of a search's trials: what is lost against the time of a call, both on log axes, as places in an SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from registry.search_models import SearchTrial
from registry.search_selectors import Standing

WIDTH, HEIGHT = 680, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 46
TICKS = [step * 10.0**power for power in range(-3, 3) for step in (1, 2, 5)]
TIP_WIDTH, TIP_HEIGHT = 250, 44


@dataclass(frozen=True)
class Point:
    trial: SearchTrial
    kind: str
    x: float
    y: float
    low: float
    high: float
    words: str

    @property
    def tip_x(self) -> float:
        return min(max(self.x - TIP_WIDTH / 2, LEFT), WIDTH - RIGHT - TIP_WIDTH)

    @property
    def tip_y(self) -> float:
        return self.y - TIP_HEIGHT - 12 if self.y > TOP + TIP_HEIGHT + 12 else self.y + 14


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Scatter:
    points: list[Point]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    front: str
    parent: tuple[float, float]
    limit: float | None

    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    width, height, middle = WIDTH, HEIGHT, (LEFT + WIDTH - RIGHT) / 2
    tip_width, tip_height = TIP_WIDTH, TIP_HEIGHT


def scatter_of(standing: Standing) -> Scatter | None:
    """None while nothing was measured. Losses of zero, or gains, lie on the lowest line."""
    measured = [(trial, trial.cost, trial.quality) for trial in standing.trials if trial.cost and trial.quality]
    if not measured:
        return None
    most = standing.search.asked.max_loss
    losses = [quality.loss for _, _, quality in measured if quality and quality.loss > 0]
    floor = max(0.01, min([*losses, most or 1.0]) / 2)
    x_range = _reach([bound for _, cost, _ in measured if cost for bound in (cost.ratio_low, cost.ratio_high, 1.0)])
    y_range = (math.log10(floor), math.log10(max([*losses, most, floor * 10]) * 1.25))

    def x(value: float) -> float:
        return round(_place(math.log10(max(value, 1e-6)), x_range, LEFT, WIDTH - RIGHT), 1)

    def y(value: float) -> float:
        return round(_place(math.log10(max(value, floor)), y_range, HEIGHT - BOTTOM - 16, TOP + 4), 1)

    points = [
        Point(
            trial, _kind(standing, trial), x(cost.ratio), y(quality.loss), x(cost.ratio_low), x(cost.ratio_high),
            _words(trial),
        )
        for trial, cost, quality in measured
        if cost and quality
    ]  # fmt: skip
    # What is recommended is drawn last, so that nothing hides it.
    points.sort(key=lambda point: ("dominated", "front", "best").index(point.kind))
    return Scatter(
        points=points,
        x_ticks=[Tick(x(tick), f"{tick:g}×") for tick in TICKS if x_range[0] <= math.log10(tick) <= x_range[1]],
        y_ticks=[Tick(y(floor), "≤ 0"), *(
            Tick(y(tick), f"{tick:g}") for tick in TICKS if y_range[0] + 0.12 < math.log10(tick) < y_range[1]
        )],
        front=_joined(points),
        parent=(x(1.0), y(0.0)),
        limit=y(most) if most > floor else None,
    )  # fmt: skip


def _reach(values: list[float]) -> tuple[float, float]:
    low, high = math.log10(max(min(values), 1e-6)), math.log10(max(values))
    air = max(0.08, 0.06 * (high - low))
    return low - air, high + air


def _place(value: float, reach: tuple[float, float], start: float, end: float) -> float:
    return start + (value - reach[0]) / (reach[1] - reach[0]) * (end - start)


def _kind(standing: Standing, trial: SearchTrial) -> str:
    if trial.key == standing.conclusion.recommended:
        return "best"
    return "front" if trial.key in standing.conclusion.front else "dominated"


def _joined(points: list[Point]) -> str:
    """A staircase over the points that nothing drawn here beats in both time and loss; others are on the front for
    their size or memory."""
    steps: list[Point] = []
    for point in sorted(points, key=lambda one: (one.x, -one.y)):
        if not steps or point.y > steps[-1].y:
            steps.append(point)
    if len(steps) < 2:
        return ""
    path = f"M{steps[0].x} {steps[0].y}"
    return path + "".join(f"H{point.x}V{point.y}" for point in steps[1:])


def _words(trial: SearchTrial) -> str:
    """One point as a sentence, for a pointer that rests on it and for readers."""
    cost: Any = trial.cost
    quality: Any = trial.quality
    return _("%(speed)s times the speed, loses %(loss)s, %(size)s MB") % {
        "speed": f"{cost.speedup:.2f}",
        "loss": f"{quality.loss:.2f}",
        "size": f"{cost.size_bytes / 1e6:.3g}",
    }
