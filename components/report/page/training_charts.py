"""Charts of a training, epoch by epoch, and of the requests that the infra validator made."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from mnist_tfx.components.report.content import Epoch, Training
from mnist_tfx.components.report.page.charts import (
    Bar,
    Chart,
    Frame,
    Mark,
    Table,
    bar,
    epoch_ticks,
    finite,
    frame,
    lines,
    percent_labels,
)
from mnist_tfx.components.report.page.scales import tick_labels, ticks
from mnist_tfx.components.report.page.words import UNKNOWN, general, number, percent, seconds

Curves = Mapping[str, Sequence[float | None]]


def training_charts(training: Training) -> tuple[Chart, ...]:
    """Loss, accuracy, learning rate (where recorded) and time of every epoch."""
    epochs = training.epochs
    charts = [
        curve_chart(
            "loss",
            "Loss",
            epochs,
            {"train": [e.loss for e in epochs], "eval": [e.val_loss for e in epochs]},
            number,
            best_epoch=training.best_epoch,
        ),
        curve_chart(
            "accuracy",
            "Accuracy",
            epochs,
            {"train": [e.accuracy for e in epochs], "eval": [e.val_accuracy for e in epochs]},
            percent,
            best_epoch=training.best_epoch,
            y_labels=percent_labels,
        ),
    ]
    if any(epoch.learning_rate is not None for epoch in epochs):
        rates = {"learning rate": [e.learning_rate for e in epochs]}
        charts.append(curve_chart("learning-rate", "Learning rate", epochs, rates, general, from_zero=True))
    return (*charts, _time_chart(epochs))


def curve_chart(
    key: str,
    title: str,
    epochs: Sequence[Epoch],
    curves: Curves,
    words: Callable[[float], str],
    *,
    best_epoch: int | None = None,
    from_zero: bool = False,
    y_labels: Callable[[Sequence[float]], Sequence[str]] = tick_labels,
) -> Chart:
    """Curves over epochs, with the epoch marked whose weights were kept. A curve may be shorter than `epochs`."""
    xs = [float(epoch.epoch) for epoch in epochs]
    drawn = finite(value for values in curves.values() for value in values) or [0.0]
    axes = _epoch_frame(xs, ticks(0.0 if from_zero else min(drawn), max(drawn)), "", y_labels)
    marks = () if best_epoch is None else (Mark(axes.x(best_epoch), f"kept: epoch {best_epoch}"),)
    kept = "" if best_epoch is None else f" The weights of epoch {best_epoch} were kept."
    return Chart(
        key=key,
        title=title,
        note="",
        description=f"{title} over {len(xs)} epochs. "
        + " ".join(_told(name, values, xs, words) for name, values in curves.items())
        + kept,
        frame=axes,
        lines=lines(axes, xs, {name: [*values, *[None] * (len(xs) - len(values))] for name, values in curves.items()}),
        marks=marks,
        table=Table(
            ("epoch", *curves),
            tuple(
                (f"{x:.0f}", *(_cell(values, index, words) for values in curves.values())) for index, x in enumerate(xs)
            ),
        ),
    )


def latency_chart(latencies_ms: Sequence[float]) -> Chart:
    """How long each request of one image took, in the order in which they were made."""
    fastest, median, slowest = min(latencies_ms), statistics.median(latencies_ms), max(latencies_ms)
    axes = frame(
        (0.5, len(latencies_ms) + 0.5),
        ticks(0.0, slowest, 4),
        x_name="request",
        y_name="milliseconds",
        x_ticks=epoch_ticks(len(latencies_ms)),
        height=190,
    )
    told = f"Fastest {fastest:.2f} ms, median {median:.2f} ms, slowest {slowest:.2f} ms."
    return Chart(
        key="latency",
        title=f"Latency of {len(latencies_ms)} requests of one image",
        note=told,
        description=f"Milliseconds of each of {len(latencies_ms)} requests, in their order. {told}",
        frame=axes,
        bars=tuple(bar(axes, (index + 0.5, index + 1.5), (0.0, value)) for index, value in enumerate(latencies_ms)),
        table=Table(
            ("request", "milliseconds"),
            tuple((str(index), f"{value:.3f}") for index, value in enumerate(latencies_ms, start=1)),
        ),
        height=190,
    )


def _time_chart(epochs: Sequence[Epoch]) -> Chart:
    xs = [float(epoch.epoch) for epoch in epochs]
    axes = frame(
        (xs[0] - 0.5, xs[-1] + 0.5),
        ticks(0.0, max(finite(epoch.seconds for epoch in epochs), default=1.0), 4),
        x_name="epoch",
        y_name="seconds",
        x_ticks=epoch_ticks(int(xs[-1])),
    )
    bars: list[Bar] = []
    for x, epoch in zip(xs, epochs, strict=True):
        wait = epoch.input_wait_seconds or 0.0
        bars.append(bar(axes, (x - 0.5, x + 0.5), (wait, max(epoch.seconds, wait)), gap=2.0))
        if wait:
            bars.append(bar(axes, (x - 0.5, x + 0.5), (0.0, wait), "bar is-waiting", gap=2.0))
    waits = [epoch.input_wait_seconds for epoch in epochs if epoch.input_wait_seconds is not None]
    total = sum(epoch.seconds for epoch in epochs)
    waited = f" of it {seconds(sum(waits))} waiting for input" if waits else " waiting for input was not recorded"
    return Chart(
        key="time",
        title="Seconds per epoch",
        note="",
        description=f"Seconds of each of {len(xs)} epochs: {seconds(total)} in all,{waited}.",
        frame=axes,
        bars=tuple(bars),
        bar_names=(("bar", "training and evaluating"), ("bar is-waiting", "waiting for input")) if waits else (),
        table=Table(
            ("epoch", "seconds", "of it waiting for input"),
            tuple((str(e.epoch), number(e.seconds, 2), number(e.input_wait_seconds, 3)) for e in epochs),
        ),
    )


def _epoch_frame(
    xs: Sequence[float], y_ticks: Sequence[float], y_name: str, y_labels: Callable[[Sequence[float]], Sequence[str]]
) -> Frame:
    ends = (xs[0], xs[-1]) if len(xs) > 1 else (xs[0] - 0.5, xs[0] + 0.5)
    marks = epoch_ticks(int(xs[-1])) if len(xs) > 1 else xs
    return frame(ends, y_ticks, x_name="epoch", y_name=y_name, x_ticks=marks, y_labels=y_labels)


def _told(name: str, values: Sequence[float | None], xs: Sequence[float], words: Callable[[float], str]) -> str:
    known = [(value, x) for value, x in zip(values, xs, strict=False) if value is not None]
    if not known:
        return f"{name}: not recorded."
    low, high = min(known), max(known)
    return (
        f"{name}: {words(known[0][0])} at first, {words(known[-1][0])} at last; lowest {words(low[0])} in epoch "
        f"{low[1]:.0f}, highest {words(high[0])} in epoch {high[1]:.0f}."
    )


def _cell(values: Sequence[float | None], index: int, words: Callable[[float], str]) -> str:
    value = values[index] if index < len(values) else None
    return UNKNOWN if value is None else words(value)
