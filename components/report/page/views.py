"""Measures, counts and the confusion matrix in the page's words and colours, and why a section is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from mnist_tfx.components.evaluator.quality import Overall, Quality
from mnist_tfx.components.report.content import Data, ReportContent, SplitData
from mnist_tfx.components.report.page.drawing import Table
from mnist_tfx.components.report.page.words import UNKNOWN, bound, change, count, number, percent, points
from mnist_tfx.components.report.run import Execution
from mnist_tfx.components.report.verdict import Outcome

_Measured = TypeVar("_Measured")


@dataclass(frozen=True)
class MeasureRow:
    """A measure of several models and how they differ, in words; `style` is a class of the style sheet."""

    name: str
    values: tuple[str, ...]
    difference: str  # of two: how it changed; of more: mean and standard deviation
    style: str


@dataclass(frozen=True)
class Measure(Generic[_Measured]):
    """One number that is known of each model; `more_is_better` is None where that is no matter of good and bad."""

    name: str
    of: Callable[[_Measured], float | None]
    words: Callable[[float | None], str]
    change: Callable[[float | None], str]
    more_is_better: bool | None = None

    def row(self, *models: _Measured | None) -> MeasureRow:
        """The measure of two or more models, of which some may be missing."""
        values = [self.of(each) if each is not None else None for each in models]
        known = [value for value in values if value is not None]
        words, style = UNKNOWN, ""
        if len(known) == len(values) == 2:
            words, style = self.change(known[1] - known[0]), change_style(known[1] - known[0], self.more_is_better)
        elif len(known) == len(values):
            words = f"{self.words(float(np.mean(known)))} ± {self.words(float(np.std(known, ddof=1)))}"
        return MeasureRow(self.name, tuple(map(self.words, values)), words, style)


MEASURES: tuple[Measure[Overall], ...] = (
    Measure("accuracy", lambda o: o.accuracy, percent, points, True),
    Measure("balanced accuracy", lambda o: o.balanced_accuracy, percent, points, True),
    Measure("macro F1", lambda o: o.macro_f1, percent, points, True),
    Measure("top-2 accuracy", lambda o: o.top_2_accuracy, percent, points, True),
    Measure("loss (cross entropy, nats)", lambda o: o.loss, number, change, False),
    Measure("expected calibration error", lambda o: o.expected_calibration_error, number, change, False),
    Measure("AUC", lambda o: o.auc, number, change, True),
    Measure("PR AUC", lambda o: o.pr_auc, number, change, True),
)
_SHADES = 10  # the style sheet has classes right-1 .. right-10 and wrong-1 .. wrong-10
SECTIONS = (
    ("verdict", "Verdict"),
    ("data", "Data"),
    ("model", "Model"),
    ("training", "Training"),
    ("quality", "Quality"),
    ("look", "Look at it"),
    ("serving", "Serving"),
    ("lineage", "Lineage and time"),
)
DRAWN = ("data", "model", "training", "quality", "look", "serving")  # by what the artifacts alone decide
_NEEDS = {  # what a section is made from
    "data": "the statistics of its data were there",
    "model": "a model was exported",
    "training": "a model was trained",
    "quality": "a model was evaluated",
    "look": "there was a model to look at",
    "serving": "there was a model to serve",
    "lineage": "anything was recorded",
}
_WENT_ON: tuple[Outcome, ...] = ("pushed", "not pushed", "not blessed", "complete", "unknown")


def missing_reason(content: ReportContent, section: str) -> str:
    """Why a section is missing, by its key."""
    verdict = content.verdict
    if verdict.outcome in _WENT_ON:
        warned = ": see “About this report” under the verdict" if verdict.warnings else ""
        return f"This section could not be made{warned}."
    where = f" at {verdict.failures[0].component}" if verdict.failures else ""
    end = "is still going on" if verdict.outcome == "running" else f"ended{where} before {_NEEDS[section]}"
    warned = " What could not be read is listed under the verdict." if verdict.warnings else ""
    return f"This section is missing: the run {end}.{warned}"


def counts_table(data: Data) -> Table:
    """Examples by split and class, and their share of the split."""

    def cell(split: SplitData, number: int) -> str:
        if number >= len(split.class_counts):
            return UNKNOWN
        return f"{count(split.class_counts[number])} {percent(split.class_counts[number] / max(split.examples, 1), 1)}"

    rows = ((name, *(cell(split, i) for split in data.splits)) for i, name in enumerate(data.class_names))
    all_classes = ("all", *(count(split.examples) for split in data.splits))
    return Table(("class", *(split.name for split in data.splits)), (all_classes, *rows))


def change_style(difference: float, more_is_better: bool | None) -> str:
    """The class of the style sheet for a change, empty for none worth a colour."""
    if more_is_better is None or abs(difference) < 5e-5:
        return ""
    return "is-good" if (difference > 0) == more_is_better else "is-open"


def bounds(content: ReportContent, measure: str) -> str:
    """The bounds on a measure, by its name; empty for none."""
    quality, recipe = content.quality, content.lineage.recipe if content.lineage else {}
    if quality is None or measure != "accuracy":
        least = recipe.get("evaluation", {}).get(f"min_{measure.lower().replace(' ', '_')}")
        return f"≥ {bound(least)}" if least else ""
    words = [f"≥ {bound(quality.min_accuracy)}"] if quality.min_accuracy is not None else []
    if quality.max_accuracy_drop is not None:
        words.append(f"drop ≤ {bound(quality.max_accuracy_drop).rstrip('%')} points")
    return ", ".join(words)


def matrix_shades(quality: Quality) -> tuple[tuple[str, ...], ...]:
    """Styles of the confusion matrix, by cell: mistakes beside the most frequent one, hits by their share."""
    shares = quality.confusion_shares
    worst = float((shares * (1 - np.eye(len(shares)))).max()) or 1.0

    def shade(actual: int, predicted: int) -> str:
        share = float(shares[actual, predicted])
        name, strength = ("right", share) if actual == predicted else ("wrong", share / worst)
        step = f"{name}-{max(1, round(_SHADES * strength))}" if share else "none"
        return f"{step} diagonal" if actual == predicted else step

    return tuple(tuple(shade(a, p) for p in range(len(shares))) for a in range(len(shares)))


def frequent_mistakes(quality: Quality, most: int = 5) -> tuple[tuple[str, str, int, float], ...]:
    """The pairs that are confused most often: actual, predicted, examples, and their share of the actual class."""
    names = [a_class.name for a_class in quality.classes]
    pairs = [
        (names[actual], names[predicted], int(quality.confusion[actual, predicted]), quality.classes[actual].examples)
        for actual, predicted in np.argwhere(quality.confusion)
        if actual != predicted
    ]
    pairs.sort(key=lambda pair: -pair[2])
    return tuple((actual, predicted, number, number / of) for actual, predicted, number, of in pairs[:most])


def gantt_seconds(executions: Sequence[Execution]) -> float:
    """How long the axis of the executions' bars is."""
    return max((e.begun + (e.seconds or 0.0) for e in executions if e.begun is not None), default=0.0) or 1.0
