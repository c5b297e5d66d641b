"""Maps values to places in a chart, and picks the round numbers at its axes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A linear map of [low, high] onto [start, end]; values outside it land at its ends."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value, to a tenth of a unit."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def ticks(low: float, high: float, most: int = 5) -> tuple[float, ...]:
    """Round numbers at equal steps of 1, 2 or 5 times a power of ten: the first at or below `low`, the last at or above
    `high`, about `most` of them.
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high < low:
        raise ValueError(f"no axis from {low} to {high}")
    if high == low:  # a flat line still needs an axis around it
        margin = abs(low) / 2 or 0.5
        low, high = low - margin, high + margin
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return tuple(round(index * step, digits) + 0.0 for index in range(first, last + 1))


def tick_labels(values: Iterable[float]) -> tuple[str, ...]:
    """The ticks in words, all with the same number of decimals: as few as tell them apart."""
    numbers = tuple(values)
    largest = max((abs(value) for value in numbers), default=0.0)
    form = "e" if 0 < largest < 1e-3 else "f"
    for digits in range(12):
        labels = tuple(f"{value:,.{digits}{form}}" for value in numbers)
        errors = (float(label.replace(",", "")) - value for label, value in zip(labels, numbers, strict=True))
        if all(abs(error) <= 1e-9 * largest for error in errors):
            break
    return tuple("0" if not value else label.replace("e-0", "e-") for label, value in zip(labels, numbers, strict=True))
