"""How far a model's confidence can be trusted, from the bins of confidence that TFMA counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnist_tfx.components.evaluator.quality import ConfidenceBin
from mnist_tfx.components.report.page.charts import Chart, Table, bar, frame, lines, percent_labels
from mnist_tfx.components.report.page.scales import ticks
from mnist_tfx.components.report.page.words import count, percent

_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def reliability_chart(bins: Sequence[ConfidenceBin], error: float | None) -> Chart:
    """Accuracy within each bin of confidence. Guo et al., "On Calibration of Modern Neural Networks", figure 1."""
    axes = frame(
        (0.0, 1.0),
        _QUARTERS,
        x_name="confidence",
        y_name="accuracy",
        x_ticks=_QUARTERS,
        x_labels=percent_labels,
        y_labels=percent_labels,
        height=270,
    )
    filled = [a_bin for a_bin in bins if a_bin.examples]
    told = measured = f"Expected calibration error {error:.4f}. " if error is not None else ""
    gap = max(filled, key=lambda b: abs(b.accuracy - b.mean_confidence), default=None)
    if gap is not None:
        told += (
            f"Widest gap: answers with a mean confidence of {percent(gap.mean_confidence, 1)} "
            f"are right in {percent(gap.accuracy, 1)}."
        )
    return Chart(
        key="reliability",
        title="Reliability",
        note="Bars below the diagonal: too sure; above it: too modest. " + measured,
        description=f"Reliability diagram: accuracy by confidence in {len(bins)} bins. {told}",
        frame=axes,
        bars=tuple(bar(axes, (b.lower, b.upper), (0.0, b.accuracy)) for b in filled),
        diagonal=True,
        table=_bins_table(bins),
        height=270,
    )


def confidence_chart(bins: Sequence[ConfidenceBin]) -> Chart:
    """How many answers of each confidence are right, and how many wrong."""
    most = max((b.examples for b in bins), default=0)
    axes = frame(
        (0.0, 1.0),
        ticks(0.0, most or 1.0, 4),
        x_name="confidence",
        y_name="examples",
        x_ticks=_QUARTERS,
        x_labels=percent_labels,
        height=270,
    )
    bars = []
    for b in bins:
        wrong = b.examples * (1 - b.accuracy)
        if b.examples:
            bars.append(bar(axes, (b.lower, b.upper), (wrong, b.examples), "bar is-true"))
            bars.append(bar(axes, (b.lower, b.upper), (0.0, wrong), "bar is-wrong"))
    top = next((b for b in reversed(bins) if b.examples), None)
    told = (
        f"Of {count(top.examples)} answers with a confidence of at least {percent(top.lower, 0)}, "
        f"{percent(top.accuracy, 1)} are right."
        if top
        else ""
    )
    return Chart(
        key="confidence",
        title="Accuracy by confidence",
        note=told,
        description=f"Examples by confidence, right and wrong. {told}",
        frame=axes,
        bars=tuple(bars),
        bar_names=(("bar is-true", "right"), ("bar is-wrong", "wrong (at the foot)")),
        table=_bins_table(bins),
        height=270,
    )


def selective_chart(bins: Sequence[ConfidenceBin]) -> Chart:
    """Accuracy, and the share of examples answered, if less confident answers are given to a person."""
    examples = np.array([b.examples for b in bins], float)
    right = np.array([b.examples * b.accuracy for b in bins])
    kept, kept_right = examples[::-1].cumsum()[::-1], right[::-1].cumsum()[::-1]
    coverage = [float(value) for value in kept / max(examples.sum(), 1.0)]
    accuracy = [float(r / k) if k else None for r, k in zip(kept_right, kept, strict=True)]
    axes = frame(
        (0.0, 1.0),
        _QUARTERS,
        x_name="least confidence that is accepted",
        y_name="",
        x_ticks=_QUARTERS,
        x_labels=percent_labels,
        y_labels=percent_labels,
        height=270,
    )
    xs = [b.lower for b in bins]
    at = next((i for i in range(len(bins) - 1, -1, -1) if xs[i] <= 0.8 + 1e-9), None)  # a usual place to look at first
    told = (
        f"Accepting answers from {percent(xs[at], 0)} on: {percent(coverage[at], 1)} of the examples are answered, "
        f"{percent(accuracy[at], 1)} of them right."
        if at is not None and accuracy[at] is not None
        else ""
    )
    return Chart(
        key="selective",
        title="If only confident answers are accepted",
        note=told,
        description=f"Accuracy and share of examples answered, by the least confidence that is accepted. {told}",
        frame=axes,
        lines=lines(axes, xs, {"accuracy of those": accuracy, "share answered": coverage}),
        table=Table(
            ("confidence at least", "share answered", "accuracy of those"),
            tuple((percent(x, 1), percent(c), percent(a)) for x, c, a in zip(xs, coverage, accuracy, strict=True)),
        ),
        height=270,
    )


def _bins_table(bins: Sequence[ConfidenceBin]) -> Table:
    return Table(
        ("confidence", "examples", "mean confidence", "accuracy"),
        tuple(
            (
                f"{percent(b.lower, 1)} to {percent(b.upper, 1)}",
                count(b.examples),
                percent(b.mean_confidence if b.examples else None),
                percent(b.accuracy if b.examples else None),
            )
            for b in bins
        ),
    )
