"""What runs have in common and where they differ, for the page that shows them beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from string import ascii_uppercase

import numpy as np

from mnist_tfx.components.evaluator.quality import Quality
from mnist_tfx.components.report.content import ReportContent
from mnist_tfx.components.report.page.charts import curve_chart
from mnist_tfx.components.report.page.drawing import Chart, Table
from mnist_tfx.components.report.page.quality_charts import change_chart
from mnist_tfx.components.report.page.views import MEASURES, Measure, MeasureRow
from mnist_tfx.components.report.page.words import UNKNOWN, change, count, flat, number, percent, points, seconds
from mnist_tfx.components.report.run import Execution

_CONFUSIONS = 8
_WORST = Measure[ReportContent]("worst class", lambda run: run.verdict.worst_class_accuracy, percent, points, True)
_tenths, _tenths_more, _more = partial(number, digits=1), partial(change, digits=1), partial(change, digits=0)
_AMOUNTS: tuple[Measure[ReportContent], ...] = (
    Measure("seconds of training", lambda run: run.training.seconds if run.training else None, _tenths, _tenths_more),
    Measure("epochs", lambda run: len(run.training.epochs) if run.training else None, count, _more),
    Measure("parameters", lambda run: run.serving.parameters if run.serving else None, count, _more),
)


def run_names(runs: Sequence[ReportContent]) -> tuple[str, ...]:
    """What the page calls them: A to Z, then AA to ZZ."""
    return tuple(ascii_uppercase[i % 26] * (i // 26 + 1) for i in range(len(runs)))


def headline(runs: Sequence[ReportContent]) -> str:
    """One sentence on how the runs compare."""
    measured = [run.verdict.accuracy for run in runs]
    known = [accuracy for accuracy in measured if accuracy is not None]
    if len(known) < len(runs):
        return "The runs cannot be compared by accuracy: one of them was not evaluated"
    if round(max(known) - min(known), 4) == 0:
        return f"{_all(runs)} have the same accuracy, {percent(known[0])}"
    if len(runs) > 2:
        best = run_names(runs)[known.index(max(known))]
        spread = f"{percent(float(np.mean(known)))} ± {number(100 * float(np.std(known, ddof=1)), 2)} points"
        return f"{len(runs)} runs, accuracy {spread}; the best is {best}, {percent(max(known))}"
    before, after = known
    better, difference = "better" if after > before else "worse", number(100 * abs(after - before), 2)
    return f"B is {better} by {difference} points: {percent(after)} against {percent(before)}"


def warnings(runs: Sequence[ReportContent]) -> tuple[str, ...]:
    """What forbids to compare the runs at face value."""
    datasets = sorted({run.dataset for run in runs})
    if len(datasets) > 1:
        return (f"The runs are of different datasets: {' and '.join(datasets)}.",)
    if len({run.lineage.data_fingerprint for run in runs if run.lineage}) > 1:
        return ("The runs were made of different data, so a difference in accuracy may come from them.",)
    return ()


def measure_rows(runs: Sequence[ReportContent]) -> tuple[MeasureRow, ...]:
    """Quality, then time and size; a measure that no run has is left out."""
    overall = [run.quality.overall if run.quality else None for run in runs]
    worst = _WORST.row(*runs)
    named = tuple(
        f"{run.verdict.worst_class or ''} {value}".lstrip() for run, value in zip(runs, worst.values, strict=True)
    )
    rows = (*(measure.row(*overall) for measure in MEASURES), worst, *(measure.row(*runs) for measure in _AMOUNTS))
    return tuple(replace(row, values=named) if row is worst else row for row in rows if set(row.values) != {UNKNOWN})


def input_differences(runs: Sequence[ReportContent]) -> tuple[tuple[str, str, Table], ...]:
    """What went into the runs, where it differs: a heading, words for it, and each difference."""
    kinds: tuple[tuple[str, str, Callable[[ReportContent], Mapping[str, str]]], ...] = (
        ("Recipe", "settings", lambda run: dict(flat(run.lineage.recipe)) if run.lineage else {}),
        ("Data", "data", _data),
        ("Code and versions", "code and versions", _versions),
    )
    return tuple(
        (heading, f"{_all(runs)} runs have the same {what}.", _differences(runs, [of(run) for run in runs]))
        for heading, what, of in kinds
    )


def times_table(runs: Sequence[ReportContent]) -> Table:
    """How long every component took in each run, in the order of the longest one."""
    found = [{e.component: e for e in run.lineage.executions} if run.lineage else {} for run in runs]
    names = dict.fromkeys(name for of_run in sorted(found, key=len, reverse=True) for name in of_run)
    rows = tuple((name, *(_time(of_run.get(name)) for of_run in found)) for name in names)
    return Table(("component", *run_names(runs)), rows)


def class_chart(a: Quality, b: Quality) -> Chart | None:
    """Recall by class, of two runs with the same classes."""
    recalls = [
        (old.name, old.scores.recall, new.scores.recall)
        for old, new in zip(a.classes, b.classes, strict=True)
        if old.examples and new.examples
    ]
    return change_chart("classes", "Recall by class, B against A in points", "B is better to the right.", recalls)


def confusion_changes(a: Quality, b: Quality) -> Table:
    """The confusions whose share of the true class changed most, of two runs with the same classes."""
    before, after, names = a.confusion_shares, b.confusion_shares, [each.name for each in a.classes]
    more = after - before
    pairs = [(true, guess) for true, guess in np.argwhere(more) if true != guess]
    pairs.sort(key=lambda pair: -abs(more[pair]))
    rows = (
        (names[true], names[guess], percent(before[true, guess], 1), percent(after[true, guess], 1), words)
        for true, guess in pairs[:_CONFUSIONS]
        for words in [f"{points(more[true, guess], 1)} {'worse' if more[true, guess] > 0 else 'better'}"]
    )
    return Table(("true", "taken for", "A", "B", "points"), tuple(rows))


def history_charts(runs: Sequence[ReportContent]) -> tuple[Chart, ...]:
    """Loss and accuracy on split eval, of every run that trained."""
    named = zip(run_names(runs), runs, strict=True)
    epochs = {name: run.training.epochs for name, run in named if run.training and run.training.epochs}
    if not epochs:
        return ()
    longest = max(epochs.values(), key=len)
    losses = {name: [e.val_loss for e in of_run] for name, of_run in epochs.items()}
    accuracies = {name: [e.val_accuracy for e in of_run] for name, of_run in epochs.items()}
    return (
        curve_chart("loss", "Loss on split eval", longest, losses, number),
        curve_chart("accuracy", "Accuracy on split eval", longest, accuracies, percent),
    )


def _differences(runs: Sequence[ReportContent], found: Sequence[Mapping[str, str]]) -> Table:
    names = dict.fromkeys(name for of_run in found for name in of_run)
    rows = ((name, *(of_run.get(name, UNKNOWN) for of_run in found)) for name in names)
    return Table(("name", *run_names(runs)), tuple(row for row in rows if len(set(row[1:])) > 1))


def _all(runs: Sequence[ReportContent]) -> str:
    return "Both" if len(runs) == 2 else "All"


def _data(run: ReportContent) -> dict[str, str]:
    found = {"fingerprint": run.lineage.data_fingerprint} if run.lineage else {}
    if run.data is not None:
        found |= {f"examples in {split.name}": count(split.examples) for split in run.data.splits}
    return found


def _versions(run: ReportContent) -> dict[str, str]:
    return {"code": run.lineage.code_version, **run.lineage.versions} if run.lineage else {}


def _time(execution: Execution | None) -> str:
    if execution is None:
        return UNKNOWN
    return seconds(execution.seconds) + (" (cached)" if execution.cached else "")
