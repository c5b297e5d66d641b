"""Charts of the data, of the training and of the requests that the infra validator made."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator

from mnist_tfx.components.report.content import Epoch, SplitData, Training
from mnist_tfx.components.report.page.drawing import PERCENT, Chart, Colour, Table, chart
from mnist_tfx.components.report.page.words import count, general, number, percent, seconds, shape

_BIN = 5  # pixel values per bar: 1..255 makes 51 bars
_WEIGHT_BINS = 31
_LOW = 190  # height of a histogram
_DOTS = 30  # points of a line beyond which it is drawn without dots
_DASHES = ("-", (0, (3, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
# Colour and dashes of a chart's lines, from the first on: two that have one colour differ in their dashes.
LINES = tuple(((Colour.SERIES_1, Colour.SERIES_2, Colour.SERIES_3)[i % 3], _DASHES[i % 4]) for i in range(12))
DASHED = (0, (3, 3))


def intensity_charts(splits: Sequence[SplitData]) -> tuple[Chart, ...]:
    """One histogram per split that has its pixels counted, all with the same axes, so that they can be compared.

    Value 0 is told in words: in MNIST it is four of five pixels, and as a bar it would flatten all others.
    """
    counted = {s.name: s.intensity / s.intensity.sum() for s in splits if s.intensity is not None and s.intensity.any()}
    bins = {name: share[1:].reshape(-1, _BIN).sum(axis=1) for name, share in counted.items()}
    highest = max((float(values.max()) for values in bins.values()), default=0.0) or 1.0
    firsts = range(1, 256, _BIN)

    def of_split(index: int, split: SplitData) -> Chart:
        share, values = counted[split.name], bins[split.name]

        def plot(axes: Axes) -> None:
            _stairs(axes, values, [*firsts, 256], "pixel value (0 is left out)", "share of pixels")
            axes.set_ylim(0, 1.05 * highest)
            axes.xaxis.set_major_locator(FixedLocator([1, 64, 128, 192, 255]))
            axes.yaxis.set_major_formatter(PERCENT)

        told = f"{percent(float(share[0]), 1)} of the pixels are 0; the mean value is {share @ np.arange(256):.1f}."
        rows = ((f"{first} to {first + _BIN - 1}", percent(float(v))) for first, v in zip(firsts, values, strict=True))
        return chart(
            f"intensity-{index}",
            f"Pixels of split {split.name}",
            plot,
            Table(("pixel values", "share of pixels"), (("0", percent(float(share[0]))), *rows)),
            description=f"Histogram of pixel values of split {split.name}, in bars of {_BIN} values. {told} The "
            f"fullest bar begins at value {firsts[int(values.argmax())]}, with {percent(float(values.max()), 1)}.",
            note=f"{told} Counted over {count(split.intensity_images)} images.",
            height=_LOW,
        )

    return tuple(of_split(index, split) for index, split in enumerate(splits) if split.name in counted)


def weight_charts(weights: Mapping[str, npt.NDArray[np.floating[Any]]]) -> tuple[Chart, ...]:
    """One histogram per weight of every layer."""

    def of_weight(index: int, name: str, values: npt.NDArray[np.floating[Any]]) -> Chart:
        finite = values[np.isfinite(values)]
        counts, edges = np.histogram(finite, _WEIGHT_BINS)
        low, high, mean, deviation = (general(float(of(finite))) for of in (np.min, np.max, np.mean, np.std))
        rows = zip(edges, edges[1:], counts, strict=False)
        return chart(
            f"weight-{index}",
            name,
            lambda axes: _stairs(axes, counts, edges, "weight", "weights"),
            Table(("from", "to", "weights"), tuple((general(a), general(b), count(n)) for a, b, n in rows)),
            note=f"{shape(values.shape)}, from {low} to {high}; mean {mean}, standard deviation {deviation}.",
            height=150,
        )

    return tuple(of_weight(index, *item) for index, item in enumerate(weights.items()) if np.isfinite(item[1]).any())


def training_charts(training: Training) -> tuple[Chart, ...]:
    """Loss, accuracy, learning rate (where recorded) and time of every epoch."""
    epochs, best = training.epochs, training.best_epoch
    losses = {"train": [e.loss for e in epochs], "eval": [e.val_loss for e in epochs]}
    accuracies = {"train": [e.accuracy for e in epochs], "eval": [e.val_accuracy for e in epochs]}
    rates = [e.learning_rate for e in epochs]
    charts = [
        curve_chart("loss", "Loss", epochs, losses, number, best),
        curve_chart("accuracy", "Accuracy", epochs, accuracies, percent, best),
    ]
    if any(rate is not None for rate in rates):
        curves = {"learning rate": rates}
        charts.append(curve_chart("learning-rate", "Learning rate", epochs, curves, general, from_zero=True))
    return (*charts, _time_chart(epochs))


def curve_chart(
    key: str,
    title: str,
    epochs: Sequence[Epoch],
    curves: Mapping[str, Sequence[float | None]],
    words: Callable[[float | None], str],
    best_epoch: int | None = None,
    *,
    from_zero: bool = False,
) -> Chart:
    """Curves over epochs, with the epoch marked whose weights were kept. A curve may be shorter than `epochs`."""
    xs = [epoch.epoch for epoch in epochs]
    curves = {name: [*values, *[None] * (len(xs) - len(values))] for name, values in curves.items()}

    def plot(axes: Axes) -> None:
        for (name, values), (colour, dashes) in zip(curves.items(), cycle(LINES), strict=False):
            # A training that diverged has losses that are not numbers: the line has a gap there.
            ys = [value if value is not None and math.isfinite(value) else math.nan for value in values]
            dots = "o" if len(xs) <= _DOTS else ""
            axes.plot(xs, ys, color=colour, linestyle=dashes, marker=dots, label=name, gid=f"curve {name}")
        if best_epoch is not None:
            axes.axvline(
                best_epoch, color=Colour.SOFT, linestyle=DASHED, linewidth=1, label=f"kept: epoch {best_epoch}"
            )
        _epochs_across(axes, xs, margin=0.0 if len(xs) > 1 else 0.5)
        if from_zero:
            axes.set_ylim(bottom=0)
        if words is percent:
            axes.yaxis.set_major_formatter(PERCENT)

    told = " ".join(_told(name, values, xs, words) for name, values in curves.items())
    kept = "" if best_epoch is None else f" The weights of epoch {best_epoch} were kept."
    return chart(
        key,
        title,
        plot,
        Table(
            ("epoch", *curves), tuple((str(x), *map(words, row)) for x, *row in zip(xs, *curves.values(), strict=True))
        ),
        description=f"{title} over {len(xs)} epochs. {told}{kept}",
    )


def latency_chart(latencies_ms: Sequence[float]) -> Chart:
    """How long each request of one image took, in the order in which they were made."""
    requests = len(latencies_ms)

    def plot(axes: Axes) -> None:
        _stairs(axes, latencies_ms, np.arange(requests + 1) + 0.5, "request", "milliseconds")
        axes.xaxis.set_major_locator(FixedLocator(whole_ticks(requests)))

    fastest, median, slowest = min(latencies_ms), statistics.median(latencies_ms), max(latencies_ms)
    return chart(
        "latency",
        f"Latency of {requests} requests of one image",
        plot,
        Table(("request", "milliseconds"), tuple((str(i), f"{v:.3f}") for i, v in enumerate(latencies_ms, start=1))),
        note=f"Fastest {fastest:.2f} ms, median {median:.2f} ms, slowest {slowest:.2f} ms.",
        height=_LOW,
    )


def whole_ticks(last: int) -> list[int]:
    """Whole numbers for an axis from 1 to `last`, always with both ends."""
    if last <= 10:
        return list(range(1, last + 1))
    inner = [int(tick) for tick in MaxNLocator(7, steps=[1, 2, 5, 10], integer=True).tick_values(1, last)]
    near = (inner[1] - inner[0]) / 2
    return [1, *(tick for tick in inner if 1 + near <= tick <= last - near), last]


def _stairs(
    axes: Axes,
    heights: Sequence[float] | npt.NDArray[Any],
    edges: Sequence[float] | npt.NDArray[Any],
    x_name: str,
    y_name: str,
) -> None:
    """Bars beside each other; of their edges there is one more."""
    axes.stairs(heights, edges, fill=True, color=Colour.BAR, gid="bars")
    axes.set(xlabel=x_name, ylabel=y_name, xlim=(edges[0], edges[-1]))


def _time_chart(epochs: Sequence[Epoch]) -> Chart:
    xs, waits = [e.epoch for e in epochs], [e.input_wait_seconds for e in epochs]
    waiting = [wait or 0.0 for wait in waits]
    known = any(wait is not None for wait in waits)

    def plot(axes: Axes) -> None:
        working = [max(e.seconds - wait, 0.0) for e, wait in zip(epochs, waiting, strict=True)]
        axes.bar(
            xs, working, 1.0, waiting, color=Colour.BAR, label="training and evaluating" if known else "", gid="bars"
        )
        if known:
            axes.bar(xs, waiting, 1.0, color=Colour.SERIES_2, label="waiting for input", gid="waiting")
        axes.set_ylabel("seconds")
        _epochs_across(axes, xs, margin=0.5)

    waited = f" of it {seconds(sum(waiting))} waiting for input" if known else " waiting for input was not recorded"
    return chart(
        "time",
        "Seconds per epoch",
        plot,
        Table(
            ("epoch", "seconds", "of it waiting for input"),
            tuple((str(e.epoch), number(e.seconds, 2), number(e.input_wait_seconds, 3)) for e in epochs),
        ),
        description=f"Seconds of each of {len(xs)} epochs: {seconds(sum(e.seconds for e in epochs))} in all,{waited}.",
    )


def _epochs_across(axes: Axes, xs: Sequence[int], margin: float) -> None:
    axes.set(xlabel="epoch", xlim=(xs[0] - margin, xs[-1] + margin))
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in whole_ticks(xs[-1]) if tick >= xs[0]]))


def _told(name: str, values: Sequence[float | None], xs: Sequence[int], words: Callable[[float | None], str]) -> str:
    known = [(value, x) for value, x in zip(values, xs, strict=True) if value is not None]
    if not known:
        return f"{name}: not recorded."
    (low, low_at), (high, high_at) = min(known), max(known)
    return (
        f"{name}: {words(known[0][0])} at first, {words(known[-1][0])} at last; lowest {words(low)} in epoch {low_at}, "
        f"highest {words(high)} in epoch {high_at}."
    )
