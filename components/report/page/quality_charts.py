"""Charts of the quality: by class, and how far the model's confidence can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, MaxNLocator

from mnist_tfx.components.evaluator.quality import ClassQuality, ConfidenceBin, Quality
from mnist_tfx.components.report.page.charts import DASHED, LINES
from mnist_tfx.components.report.page.drawing import COUNT, PERCENT, Chart, Colour, Table, chart
from mnist_tfx.components.report.page.words import MANY_CLASSES, bound, count, percent, points, shorten

# Height of a class's row, and of all else; where the plot begins, right of the names.
_ROW, _AROUND, _NAMES = 24, 68, 100
_NAME_CHARACTERS = 13
_DRAWN = 20  # classes of a chart, where there are more than a page has room for
# Precision, recall, F1: each has a shape of its own, not only a colour.
_SCORES = (("precision", "D", Colour.SERIES_1), ("recall", "o", Colour.SERIES_2), ("F1", "^", Colour.SERIES_3))


def scores_chart(quality: Quality) -> Chart:
    """Precision, recall and F1 by class, and the bound that recall must keep; of many classes the worst are drawn."""
    limit = quality.min_class_accuracy
    classes = [c for c in quality.classes if c.examples]  # as in TFMA's averages
    few = len(classes) <= MANY_CLASSES
    if not few:
        classes.sort(key=lambda c: c.scores.recall)
    scores = np.array([(c.scores.precision, c.scores.recall, c.scores.f1) for c in classes])
    averages = scores.mean(axis=0)
    worst, best = (pick(classes, key=lambda c: c.scores.recall) for pick in (min, max))
    must = f" Recall must be at least {bound(limit)}." if limit else ""
    told = (
        f"Recall is lowest for {worst.name}, {percent(worst.scores.recall)}, "
        f"and highest for {best.name}, {percent(best.scores.recall)}.{must} Macro averages: "
        f"{', '.join(f'{name} {percent(mean)}' for (name, *_), mean in zip(_SCORES, averages, strict=True))}."
    )
    drawn = classes if few else classes[:_DRAWN]
    if not few:
        told += f" The {_DRAWN} worst are drawn; the table has {count(len(classes) - _DRAWN)} more."

    def plot(axes: Axes) -> None:
        rows, shown = range(len(drawn)), scores[: len(drawn)]
        axes.hlines(rows, shown.min(axis=1), shown.max(axis=1), color=Colour.RULE, linewidth=1)
        for (name, marker, colour), values in zip(_SCORES, shown.T, strict=True):
            axes.plot(values, rows, marker, color=colour, markersize=7, label=name, gid=f"scores {name}")
        if limit:
            axes.axvline(
                limit, color=Colour.RED, linestyle=DASHED, linewidth=1.5, label=f"recall ≥ {bound(limit)}", gid="limit"
            )
        lowest = shown.min(initial=min(limit or 1.0, 0.99))
        marks = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(lowest, 1.0)
        axes.set_xlim(float(marks[0]), 1.0)
        axes.xaxis.set_major_locator(FixedLocator([mark for mark in marks if mark <= 1]))
        axes.xaxis.set_major_formatter(PERCENT)
        _name_rows(axes, [c.name for c in drawn])

    of_all = (("macro average", count(quality.examples), *map(percent, averages)),)
    return chart(
        "scores",
        "Precision, recall and F1 by class",
        plot,
        Table(
            ("class", "examples", *(name for name, _, _ in _SCORES)),
            of_all + tuple((c.name, count(c.examples), *map(percent, r)) for c, r in zip(classes, scores, strict=True)),
        ),
        note=told,
        height=_ROW * len(drawn) + _AROUND,
        left=_NAMES,
    )


def change_chart(key: str, title: str, note: str, recalls: Sequence[tuple[str, float, float]]) -> Chart | None:
    """How much the recall of every class rose or fell, the greatest gain first; `recalls`: name, before and after.

    None where there is no class. Of many classes the greatest gains and losses are shown.
    """
    changes = [(*recall, recall[2] - recall[1]) for recall in recalls]
    if not changes:
        return None
    changes.sort(key=lambda change: -change[3])
    (first, *_, most), (last, *_, least) = changes[0], changes[-1]
    better, worse = sum(c[3] > 0 for c in changes), sum(c[3] < 0 for c in changes)
    told = (
        f"{better} classes got better, {worse} worse. From {points(most, 1)} points ({first}) to {points(least, 1)} "
        f"points ({last})."
    )
    if len(changes) > MANY_CLASSES:
        note += f" {count(len(changes) - _DRAWN)} classes that changed less are left out."
        changes = changes[: _DRAWN // 2] + changes[-_DRAWN // 2 :]

    def plot(axes: Axes) -> None:
        end = max(abs(most), abs(least)) or 0.01
        for row, (*_, change) in enumerate(changes):
            name, colour, side = ("better", Colour.SERIES_1, -1) if change >= 0 else ("worse", Colour.SERIES_2, 1)
            axes.barh(row, change, 0.6, color=colour, gid=name)
            # On the free side of zero, where no bar can be.
            words, where = points(change, 1), "right" if side < 0 else "left"
            axes.annotate(
                words, (0, row), (5 * side, 0), textcoords="offset points", ha=where, va="center", color=Colour.INK
            )
        axes.axvline(0, color=Colour.RULE, linewidth=1, gid="zero")
        axes.set(xlim=(-1.05 * end, 1.05 * end), xlabel="points")
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda mark, _: points(mark, 0 if end >= 0.02 else 1) if mark else "0")
        _name_rows(axes, [change[0] for change in changes])

    return chart(
        key,
        title,
        plot,
        Table(
            ("class", "recall before", "recall after", "change in points"),
            tuple((name, percent(old), percent(new), points(change)) for name, old, new, change in changes),
        ),
        description=f"{title}. {told}",
        note=note,
        height=_ROW * len(changes) + _AROUND,
        left=_NAMES,
    )


def baseline_chart(classes: Sequence[ClassQuality]) -> Chart | None:
    """Recall of every class against the baseline; None where there is none."""
    recalls = [(c.name, c.baseline.recall, c.scores.recall) for c in classes if c.examples and c.baseline is not None]
    return change_chart("baseline", "Recall against the baseline, in points", "Better to the right.", recalls)


def confidence_charts(bins: Sequence[ConfidenceBin], error: float | None) -> tuple[Chart, ...]:
    """From the bins of confidence that TFMA counted; none where it counted none."""
    return (_reliability_chart(bins, error), _confidence_chart(bins), _selective_chart(bins)) if bins else ()


def _reliability_chart(bins: Sequence[ConfidenceBin], error: float | None) -> Chart:
    """Accuracy within each bin of confidence. Guo et al., "On Calibration of Modern Neural Networks", figure 1."""
    filled = [a_bin for a_bin in bins if a_bin.examples]
    told = "Bars below the diagonal: too sure; above it: too modest. "
    told += f"Expected calibration error {error:.4f}. " if error is not None else ""
    gap = max(filled, key=lambda b: abs(b.accuracy - b.mean_confidence), default=None)
    if gap is not None:
        told += f"Widest gap: a mean confidence of {percent(gap.mean_confidence, 1)}, {percent(gap.accuracy, 1)} right."

    def plot(axes: Axes) -> None:
        _bars(axes, filled, [b.accuracy for b in filled], color=Colour.BAR, gid="bars")
        axes.plot([0, 1], [0, 1], color=Colour.INK, linestyle=DASHED, linewidth=1.5, gid="diagonal")
        _shares(axes.xaxis, "confidence")
        _shares(axes.yaxis, "accuracy")

    return chart("reliability", "Reliability", plot, _bins_table(bins), note=told, height=270)


def _confidence_chart(bins: Sequence[ConfidenceBin]) -> Chart:
    """How many answers of each confidence are right, and how many wrong."""
    top = next((b for b in reversed(bins) if b.examples), None)
    told = (
        f"Of {count(top.examples)} answers with a confidence of at least {percent(top.lower, 0)}, "
        f"{percent(top.accuracy, 1)} are right."
        if top
        else ""
    )

    def plot(axes: Axes) -> None:
        right = [b.examples * b.accuracy for b in bins]
        wrong = [b.examples - hits for b, hits in zip(bins, right, strict=True)]
        _bars(axes, bins, right, bottom=wrong, color=Colour.BLUE, label="right", gid="right")
        _bars(axes, bins, wrong, color=Colour.RED, label="wrong (at the foot)", gid="wrong")
        _shares(axes.xaxis, "confidence")
        axes.set_ylabel("examples")
        axes.yaxis.set_major_formatter(COUNT)

    return chart("confidence", "Accuracy by confidence", plot, _bins_table(bins), note=told, height=270)


def _selective_chart(bins: Sequence[ConfidenceBin]) -> Chart:
    """Accuracy, and the share of examples answered, if less confident answers are given to a person."""
    xs = [b.lower for b in bins]
    kept = np.cumsum([b.examples for b in reversed(bins)])[::-1]
    right = np.cumsum([b.examples * b.accuracy for b in reversed(bins)])[::-1]
    coverage = [float(value) for value in kept / max(kept[0], 1)]
    accuracy = [float(r / k) if k else None for r, k in zip(right, kept, strict=True)]
    at = next((i for i in range(len(bins) - 1, -1, -1) if xs[i] <= 0.8 + 1e-9), None)  # a usual place to look at first
    told = (
        f"Accepting answers from {percent(xs[at], 0)} on: {percent(coverage[at], 1)} of the examples are answered, "
        f"{percent(accuracy[at], 1)} of them right."
        if at is not None and accuracy[at] is not None
        else ""
    )

    def plot(axes: Axes) -> None:
        named = {"accuracy of those": np.array(accuracy, float), "share answered": np.array(coverage)}
        for (name, ys), (colour, dashes) in zip(named.items(), LINES, strict=False):
            axes.plot(xs, ys, color=colour, linestyle=dashes, marker="o", label=name, gid=f"curve {name}")
        _shares(axes.xaxis, "least confidence that is accepted")
        _shares(axes.yaxis, "share")

    return chart(
        "selective",
        "If only confident answers are accepted",
        plot,
        Table(
            ("confidence at least", "share answered", "accuracy of those"),
            tuple((percent(x, 1), percent(c), percent(a)) for x, c, a in zip(xs, coverage, accuracy, strict=True)),
        ),
        note=told,
        height=270,
    )


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """A row per class, the first at the top."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [shorten(name, _NAME_CHARACTERS) for name in names], color=Colour.INK)
    axes.grid(False)
    axes.grid(axis="x", color=Colour.LINE)


def _bars(axes: Axes, bins: Sequence[ConfidenceBin], heights: Sequence[float], **look: Any) -> None:
    axes.bar([b.lower for b in bins], heights, [b.upper - b.lower for b in bins], align="edge", **look)


def _shares(axis: Axis, name: str) -> None:
    """An axis from 0% to 100%."""
    axis.set_label_text(name)
    axis.set_view_interval(0, 1, ignore=True)
    axis.set_major_locator(FixedLocator([0.0, 0.25, 0.5, 0.75, 1.0]))
    axis.set_major_formatter(PERCENT)


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
