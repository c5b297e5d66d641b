"""What two runs have in common and where they differ, for the page that shows them beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tfx.components.evaluator.quality import ClassQuality, Quality
from mnist_tfx.components.report.content import ReportContent
from mnist_tfx.components.report.page.charts import curve_chart
from mnist_tfx.components.report.page.drawing import Chart
from mnist_tfx.components.report.page.quality_charts import change_chart
from mnist_tfx.components.report.page.views import MEASURES, MeasureRow, change_style
from mnist_tfx.components.report.page.words import UNKNOWN, count, flat, number, percent, points, seconds
from mnist_tfx.components.report.run import Execution

_CONFUSIONS = 8
Difference = tuple[str, str, str]  # name, in A, in B


def headline(a: ReportContent, b: ReportContent) -> str:
    """One sentence on how B compares with A."""
    before, after = a.verdict.accuracy, b.verdict.accuracy
    if before is None or after is None:
        return "The runs cannot be compared by accuracy: one of them was not evaluated"
    if round(after - before, 4) == 0:
        return f"Both have the same accuracy, {percent(after)}"
    better = "better" if after > before else "worse"
    change = points(abs(after - before)).lstrip("+")
    return f"B is {better} by {change} points: {percent(after)} against {percent(before)}"


def warnings(a: ReportContent, b: ReportContent) -> tuple[str, ...]:
    """What forbids to compare the runs at face value."""
    found = []
    if a.dataset != b.dataset:
        found.append(f"The runs are of different datasets: {a.dataset} and {b.dataset}.")
    elif a.lineage and b.lineage and a.lineage.data_fingerprint != b.lineage.data_fingerprint:
        found.append("The runs were made of different data, so a difference in accuracy may come from them.")
    return tuple(found)


def measure_changes(a: ReportContent, b: ReportContent) -> tuple[MeasureRow, ...]:
    """Quality, then time and size; a measure that neither run has is left out."""
    overall = [run.quality.overall if run.quality else None for run in (a, b)]
    measures = (measure.row(*overall) for measure in MEASURES)
    (worst_a, share_a), (worst_b, share_b) = _worst(a), _worst(b)
    change = None if share_a is None or share_b is None else share_b - share_a
    worst = MeasureRow("worst class", worst_a, worst_b, points(change), change_style(change, more_is_better=True))
    amounts: tuple[tuple[str, Callable[[ReportContent], float | None], Callable[[Any], str]], ...] = (
        ("time of training", lambda run: run.training.seconds if run.training else None, seconds),
        ("epochs", lambda run: len(run.training.epochs) if run.training else None, _count),
        ("parameters", lambda run: run.serving.parameters if run.serving else None, _count),
    )
    return (
        *(row for row in measures if (row.before, row.after) != (UNKNOWN, UNKNOWN)),
        worst,
        *(MeasureRow(name, words(of(a)), words(of(b)), _ratio(of(a), of(b)), "") for name, of, words in amounts),
    )


def input_changes(a: ReportContent, b: ReportContent) -> tuple[tuple[str, str, tuple[Difference, ...]], ...]:
    """What went into the runs, where it differs: a heading, what it is, and each difference."""
    kinds: tuple[tuple[str, str, Callable[[ReportContent], Mapping[str, str]]], ...] = (
        ("Recipe", "settings", lambda run: dict(flat(run.lineage.recipe)) if run.lineage else {}),
        ("Data", "data", _data),
        ("Code and versions", "code and versions", _versions),
    )
    return tuple((heading, what, _differences(of(a), of(b))) for heading, what, of in kinds)


def time_changes(a: ReportContent, b: ReportContent) -> tuple[Difference, ...]:
    """How long every component took in both runs, in the order of the longer one."""
    of_a, of_b = ({e.component: e for e in run.lineage.executions} if run.lineage else {} for run in (a, b))
    order = of_a if len(of_a) >= len(of_b) else of_b
    names = [*order, *(name for name in {**of_a, **of_b} if name not in order)]
    return tuple((name, _time(of_a.get(name)), _time(of_b.get(name))) for name in names)


def class_chart(a: ReportContent, b: ReportContent) -> Chart | None:
    """Recall by class; None where the runs do not have the same classes."""
    recalls = [(old.name, old.scores.recall, new.scores.recall) for old, new in _same_classes(a.quality, b.quality)]
    return change_chart("classes", "Recall by class, B against A in points", "B is better to the right.", recalls)


def confusion_changes(a: ReportContent, b: ReportContent) -> list[tuple[str, str, float, float]]:
    """The confusions whose share of the true class changed most: true class, guess, share in A and in B."""
    if a.quality is None or b.quality is None or not _same_classes(a.quality, b.quality):
        return []
    names = [c.name for c in a.quality.classes]
    before, after = _shares(a.quality), _shares(b.quality)
    changes = [
        (names[true], names[guess], float(before[true, guess]), float(after[true, guess]))
        for true, guess in zip(*np.nonzero(before != after), strict=True)
        if true != guess
    ]
    return sorted(changes, key=lambda change: -abs(change[3] - change[2]))[:_CONFUSIONS]


def history_charts(a: ReportContent, b: ReportContent) -> tuple[Chart, ...]:
    """Loss and accuracy on split eval, of both runs; none where one of them did not train."""
    if a.training is None or b.training is None or not a.training.epochs or not b.training.epochs:
        return ()
    of_a, of_b = a.training.epochs, b.training.epochs
    longer = of_a if len(of_a) >= len(of_b) else of_b
    losses = {"A": [e.val_loss for e in of_a], "B": [e.val_loss for e in of_b]}
    accuracies = {"A": [e.val_accuracy for e in of_a], "B": [e.val_accuracy for e in of_b]}
    return (
        curve_chart("loss", "Loss on split eval", longer, losses, number),
        curve_chart("accuracy", "Accuracy on split eval", longer, accuracies, percent),
    )


def _same_classes(a: Quality | None, b: Quality | None) -> list[tuple[ClassQuality, ClassQuality]]:
    """Each class in both runs; none where they are not the same."""
    if a is None or b is None or [c.name for c in a.classes] != [c.name for c in b.classes]:
        return []
    return list(zip(a.classes, b.classes, strict=True))


def _shares(quality: Quality) -> npt.NDArray[np.float64]:
    """The confusion matrix in shares of the true class."""
    return quality.confusion / np.maximum(quality.confusion.sum(axis=1, keepdims=True), 1)


def _differences(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[Difference, ...]:
    names: Iterable[str] = {**a, **b}
    return tuple((name, a.get(name, UNKNOWN), b.get(name, UNKNOWN)) for name in names if a.get(name) != b.get(name))


def _data(run: ReportContent) -> dict[str, str]:
    found = {"fingerprint": run.lineage.data_fingerprint} if run.lineage else {}
    if run.data is not None:
        found |= {f"examples in {split.name}": count(split.examples) for split in run.data.splits}
    return found


def _versions(run: ReportContent) -> dict[str, str]:
    return {"code": run.lineage.code_version, **run.lineage.versions} if run.lineage else {}


def _worst(run: ReportContent) -> tuple[str, float | None]:
    verdict = run.verdict
    if verdict.worst_class is None:
        return UNKNOWN, None
    return f"{verdict.worst_class} {percent(verdict.worst_class_accuracy)}", verdict.worst_class_accuracy


def _ratio(before: float | None, after: float | None) -> str:
    if before == after and before is not None:
        return "the same"
    return f"{after / before:.2f} times" if before and after is not None else UNKNOWN


def _count(value: Any) -> str:
    return UNKNOWN if value is None else count(value)


def _time(execution: Execution | None) -> str:
    if execution is None:
        return UNKNOWN
    return seconds(execution.seconds) + (" (cached)" if execution.cached else "")
