"""Charts as places in an SVG of 340 units' width; `templates/charts.html` draws them.

They are drawn by the templates and not by a plotting library, so that their colours are the page's CSS variables: one
drawing serves light, dark and print, its text stays text, and it takes a few kilobytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mnist_tfx.components.report.page.scales import Scale, tick_labels, ticks

WIDTH, HEIGHT = 340, 224
_LEFT, _RIGHT = 46, WIDTH - 10  # the plot, within the drawing
_TOP, _BOTTOM = 24, 38  # margins
_DOTS = 30  # points of a line beyond which it is drawn without dots


@dataclass(frozen=True)
class Table:
    """What a chart shows, in numbers. The first cell of a row is its name."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Tick:
    """A place on an axis and its label."""

    at: float
    text: str


@dataclass(frozen=True)
class Frame:
    """The axes of a chart."""

    x: Scale
    y: Scale
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_name: str
    y_name: str

    @property
    def left(self) -> float:
        """Where the plot begins; so with the other three."""
        return self.x.start

    @property
    def right(self) -> float:
        return self.x.end

    @property
    def top(self) -> float:
        return self.y.end

    @property
    def bottom(self) -> float:
        return self.y.start


@dataclass(frozen=True)
class Line:
    """A curve; `path` is an SVG path with a gap where a value is missing."""

    name: str
    path: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Bar:
    """A rectangle from the base line; `style` is one of the style sheet's classes."""

    x: float
    y: float
    width: float
    height: float
    style: str


@dataclass(frozen=True)
class Mark:
    """A vertical line across the plot, with a few words."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """One chart. `description` says in words, with numbers, what a reader would see."""

    key: str  # unique within the page
    title: str
    note: str
    description: str
    frame: Frame
    table: Table
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    bar_names: tuple[tuple[str, str], ...] = ()  # style and meaning, for the legend
    marks: tuple[Mark, ...] = ()
    diagonal: bool = False
    height: int = HEIGHT


def frame(
    x: tuple[float, float],
    y_ticks: Sequence[float],
    *,
    x_name: str,
    y_name: str,
    x_ticks: Sequence[float] | None = None,
    x_labels: Callable[[Sequence[float]], Iterable[str]] = tick_labels,
    y_labels: Callable[[Sequence[float]], Iterable[str]] = tick_labels,
    height: int = HEIGHT,
) -> Frame:
    """Axes from `x[0]` to `x[1]` and from the first of `y_ticks` to the last."""
    across = Scale(*x, _LEFT, _RIGHT)
    up = Scale(y_ticks[0], y_ticks[-1], height - _BOTTOM, _TOP)
    inside = [tick for tick in (ticks(*x) if x_ticks is None else x_ticks) if x[0] <= tick <= x[1]]
    return Frame(
        across,
        up,
        tuple(Tick(across(value), text) for value, text in zip(inside, x_labels(inside), strict=True)),
        tuple(Tick(up(value), text) for value, text in zip(y_ticks, y_labels(y_ticks), strict=True)),
        x_name,
        y_name,
    )


def percent_labels(values: Sequence[float]) -> tuple[str, ...]:
    """Ticks that are shares, in percent."""
    return tuple(f"{label}%" for label in tick_labels([round(100 * value, 6) for value in values]))


def lines(axes: Frame, xs: Sequence[float], series: Mapping[str, Sequence[float | None]]) -> tuple[Line, ...]:
    """The curves of several series over the same `xs`."""
    return tuple(_line(axes, name, xs, values) for name, values in series.items())


def bar(axes: Frame, x: tuple[float, float], y: tuple[float, float], style: str = "bar", gap: float = 1.0) -> Bar:
    """A bar over x[0]..x[1] from y[0] to y[1], with half of `gap` left free at either side."""
    left, right = axes.x(x[0]), axes.x(x[1])
    top, base = axes.y(y[1]), axes.y(y[0])
    return Bar(
        round(left + gap / 2, 1), top, round(max(right - left - gap, 0.5), 1), round(max(base - top, 0.0), 1), style
    )


def epoch_ticks(last: int) -> tuple[float, ...]:
    """Whole epochs for an axis from 1 to `last`, always with both ends."""
    if last <= 10:
        return tuple(float(epoch) for epoch in range(1, last + 1))
    inner = [tick for tick in ticks(1, last, 7) if tick == int(tick) and 1 < tick < last]
    step = inner[1] - inner[0] if len(inner) > 1 else 1.0
    return (1.0, *(tick for tick in inner if tick - 1 >= step / 2 and last - tick >= step / 2), float(last))


def finite(values: Iterable[float | None]) -> list[float]:
    """Those values that can be drawn: a training that diverged has losses that are not numbers."""
    return [value for value in values if value is not None and math.isfinite(value)]


def _line(axes: Frame, name: str, xs: Sequence[float], values: Sequence[float | None]) -> Line:
    path, dots, broken = [], [], True
    for x, value in zip(xs, values, strict=True):
        if value is None or not math.isfinite(value):
            broken = True
            continue
        place = axes.x(x), axes.y(value)
        path.append(f"{'M' if broken else 'L'}{place[0]:g} {place[1]:g}")
        dots.append(place)
        broken = False
    return Line(name, "".join(path), tuple(dots) if len(dots) <= _DOTS else ())
