"""The confusion matrix and the charts that have a row per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mnist_tfx.components.evaluator.quality import ClassQuality, Quality
from mnist_tfx.components.report.page.charts import Table, Tick, percent_labels
from mnist_tfx.components.report.page.scales import Scale, ticks
from mnist_tfx.components.report.page.words import bound, count, percent, points, shorten

_SHADES = 10  # the style sheet has classes right-1 .. right-10 and wrong-1 .. wrong-10
_ROW, _ACROSS, _NAME_CHARACTERS = 24, (100, 326), 13


@dataclass(frozen=True)
class Cell:
    """One cell of the confusion matrix; `shade` is a class of the style sheet, empty for none."""

    count: int
    share: float  # of the actual class
    shade: str
    diagonal: bool


@dataclass(frozen=True)
class Row:
    """One class in a chart that has a row per class."""

    name: str
    short: str
    y: float
    places: tuple[float, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class RowChart:
    """A chart with a row per class: dots on one axis, or bars to either side of `zero`."""

    key: str
    title: str
    note: str
    description: str
    left: float
    right: float
    height: int
    ticks: tuple[Tick, ...]
    rows: tuple[Row, ...]
    table: Table
    limit: Tick | None = None
    zero: float | None = None
    names: tuple[str, ...] = ()  # what the places of a row are


def matrix_rows(confusion: npt.NDArray[np.int64]) -> tuple[tuple[Cell, ...], ...]:
    """Rows are actual classes. Mistakes are shaded against the most frequent one, hits by their share."""
    totals = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
    mistakes = shares * (1 - np.eye(len(shares)))
    worst = float(mistakes.max()) or 1.0

    def cell(actual: int, predicted: int) -> Cell:
        share, diagonal = float(shares[actual, predicted]), actual == predicted
        strength = share if diagonal else share / worst
        shade = f"{'right' if diagonal else 'wrong'}-{max(1, round(_SHADES * strength))}" if share else ""
        return Cell(int(confusion[actual, predicted]), share, shade, diagonal)

    return tuple(tuple(cell(a, p) for p in range(len(shares))) for a in range(len(shares)))


def frequent_mistakes(quality: Quality, most: int = 5) -> tuple[tuple[str, str, int], ...]:
    """The pairs (actual, predicted, examples) that are confused most often."""
    names = [a_class.name for a_class in quality.classes]
    pairs = [
        (int(number), names[actual], names[predicted])
        for (actual, predicted), number in np.ndenumerate(quality.confusion)
        if actual != predicted and number
    ]
    return tuple((actual, predicted, number) for number, actual, predicted in sorted(pairs, key=lambda p: -p[0])[:most])


def scores_chart(quality: Quality) -> RowChart:
    """Precision, recall and F1 of every class, and the bound that recall must keep."""
    classes = quality.classes
    scores = [(c.scores.precision, c.scores.recall, c.scores.f1) for c in classes]
    lowest = min((value for row in scores for value in row), default=0.0)
    limit = quality.min_class_accuracy
    marks = ticks(min(lowest, limit if limit else 1.0, 0.99), 1.0)
    across = Scale(marks[0], marks[-1], *_ACROSS)
    worst = min(classes, key=lambda c: c.scores.recall)
    best = max(classes, key=lambda c: c.scores.recall)
    told = (
        f"Recall is lowest for {worst.name}, {percent(worst.scores.recall)}, "
        f"and highest for {best.name}, {percent(best.scores.recall)}."
    )
    must = f" Recall must be at least {bound(limit)}." if limit else ""
    return RowChart(
        key="scores",
        title="Precision, recall and F1 by class",
        note=told + must,
        description=f"Precision, recall and F1 of {len(classes)} classes. {told}{must}",
        left=across.start,
        right=across.end,
        height=_ROW * len(classes) + 44,
        ticks=_ticks(across, marks),
        rows=tuple(
            _row(index, c.name, [across(value) for value in row], [percent(value) for value in row])
            for index, (c, row) in enumerate(zip(classes, scores, strict=True))
        ),
        limit=Tick(across(limit), f"recall ≥ {bound(limit)}") if limit else None,
        names=("precision", "recall", "F1"),
        table=Table(
            ("class", "examples", "precision", "recall", "F1"),
            tuple(
                (c.name, count(c.examples), *(percent(value) for value in row))
                for c, row in zip(classes, scores, strict=True)
            ),
        ),
    )


def change_chart(
    key: str, title: str, note: str, before: Sequence[tuple[str, float]], after: Sequence[tuple[str, float]]
) -> RowChart:
    """How much the recall of every class rose or fell, the greatest gain first; names and recalls come in pairs."""
    changes = sorted(
        ((name, old, new, new - old) for (name, old), (_, new) in zip(before, after, strict=True)),
        key=lambda change: -change[3],
    )
    widest = max((abs(change[3]) for change in changes), default=0.0) or 0.01
    marks = [mark for mark in ticks(-widest, widest) if -1 <= mark <= 1]
    end = max(abs(marks[0]), abs(marks[-1]))
    across = Scale(-end, end, *_ACROSS)
    better, worse = sum(c[3] > 0 for c in changes), sum(c[3] < 0 for c in changes)
    told = f"{better} classes got better, {worse} worse."
    if changes:
        first, last = changes[0], changes[-1]
        told += f" From {points(first[3], 1)} points ({first[0]}) to {points(last[3], 1)} points ({last[0]})."
    return RowChart(
        key=key,
        title=title,
        note=note,
        description=f"{title}. {told}",
        left=across.start,
        right=across.end,
        height=_ROW * len(changes) + 44,
        ticks=tuple(Tick(across(mark), points(mark, 0 if end >= 0.02 else 1) if mark else "0") for mark in marks),
        rows=tuple(
            _row(index, name, [across(change)], [points(change, 1)])
            for index, (name, _, _, change) in enumerate(changes)
        ),
        zero=across(0.0),
        table=Table(
            ("class", "recall before", "recall after", "change in points"),
            tuple((name, percent(old), percent(new), points(change)) for name, old, new, change in changes),
        ),
    )


def baseline_chart(classes: Sequence[ClassQuality]) -> RowChart | None:
    """Recall of every class against the baseline; None where there is none."""
    pairs = [(c.name, c.baseline.recall, c.scores.recall) for c in classes if c.baseline is not None]
    if not pairs:
        return None
    before, after = [(name, old) for name, old, _ in pairs], [(name, new) for name, _, new in pairs]
    return change_chart("baseline", "Recall against the baseline, in points", "Better to the right.", before, after)


def _ticks(across: Scale, marks: Sequence[float]) -> tuple[Tick, ...]:
    return tuple(Tick(across(mark), text) for mark, text in zip(marks, percent_labels(marks), strict=True))


def _row(index: int, name: str, places: Sequence[float], texts: Sequence[str]) -> Row:
    y = 22.0 + _ROW * index + _ROW / 2
    return Row(name, shorten(name, _NAME_CHARACTERS), y, tuple(places), tuple(texts))
