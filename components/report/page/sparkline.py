"""A curve of one value over the runs of a dataset, in the size of a line of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnist_tfx.components.report.page.scales import Scale

WIDTH, HEIGHT = 240, 48
_MARGIN = 6


@dataclass(frozen=True)
class Sparkline:
    """Its points, the oldest first; `last` is where it ends."""

    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> tuple[float, float]:
        return self.points[-1]


def sparkline(values: Sequence[float]) -> Sparkline | None:
    """None where there is nothing to draw."""
    if not values:
        return None
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1, high + 1
    across = Scale(0, max(len(values) - 1, 1), _MARGIN, WIDTH - _MARGIN)
    up = Scale(low, high, HEIGHT - _MARGIN, _MARGIN)
    return Sparkline(tuple((across(index), up(value)) for index, value in enumerate(values)))
