"""The verdict, the tables and the executions in the page's words and colours, and why a section is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from mnist_tfx.components.evaluator.quality import Overall, Quality
from mnist_tfx.components.report.content import Data, Layer, ReportContent, SplitData
from mnist_tfx.components.report.page.drawing import Table
from mnist_tfx.components.report.page.words import (
    UNKNOWN,
    bound,
    change,
    count,
    moment,
    number,
    percent,
    points,
    seconds,
    shape,
)
from mnist_tfx.components.report.run import Execution
from mnist_tfx.components.report.verdict import Gate, Outcome, State, Verdict

_Measured = TypeVar("_Measured")


@dataclass(frozen=True)
class OutcomeLook:
    """How an outcome looks: `style` is "good", "bad" or "open"."""

    label: str
    style: str
    sign: str


@dataclass(frozen=True)
class Tile:
    """One figure under the verdict; `style` is a class of the style sheet, empty for none."""

    name: str
    value: str
    note: str = ""
    style: str = ""


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


@dataclass(frozen=True)
class Cell:
    """One cell of the confusion matrix; `style` are classes of the style sheet."""

    count: int
    share: float  # of the actual class
    style: str


@dataclass(frozen=True)
class GanttRow:
    """One execution; `x` and `width` are None where its times are not known."""

    execution: Execution
    state: str
    style: str  # of the bar
    tone: str  # of the tag
    x: float | None
    width: float | None


OUTCOMES: Mapping[Outcome, OutcomeLook] = {
    "pushed": OutcomeLook("Pushed", "good", "✓"),
    "not pushed": OutcomeLook("Good enough, but not pushed", "open", "!"),
    "not blessed": OutcomeLook("Not good enough to push", "bad", "✗"),
    "data rejected": OutcomeLook("Data rejected", "bad", "✗"),
    "complete": OutcomeLook("Complete, without a push", "open", "!"),
    "failed": OutcomeLook("Failed", "bad", "✗"),
    "stopped": OutcomeLook("Stopped", "open", "!"),
    "killed": OutcomeLook("Killed", "bad", "✗"),
    "running": OutcomeLook("Still running", "open", "!"),
    "unknown": OutcomeLook("Not known yet", "open", "!"),
}
_STATES: Mapping[State, tuple[str, str]] = {
    "passed": ("✓ passed", "is-good"),
    "failed": ("✗ failed", "is-bad"),
    "withheld": ("not pushed", "is-open"),
    "not reached": ("not reached", ""),
}
_EXECUTION_STATES = {  # in words, style of the bar, tone of the tag
    "COMPLETE": ("run", "run", ""),
    "CACHED": ("cached", "cached", "soft"),
    "FAILED": ("✗ failed", "failed", "is-bad"),
    "CANCELED": ("canceled", "cached", "is-open"),
    "RUNNING": ("running", "run", "is-open"),
}
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
_GANTT_UNITS = 1000.0  # width of the column of bars
_LEAST = 5.0  # of a bar, so that an execution answered from the cache can be seen at all
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


def tiles(content: ReportContent) -> tuple[Tile, ...]:
    """The figures of the verdict, in the order in which people ask for them."""
    verdict, quality = content.verdict, content.quality
    least = quality.min_accuracy if quality else None
    least_class = quality.min_class_accuracy if quality else None
    return (
        _bounded("accuracy", verdict.accuracy, percent(verdict.accuracy), "", least),
        _bounded(
            "worst class",
            verdict.worst_class_accuracy,
            verdict.worst_class or UNKNOWN,
            f"{percent(verdict.worst_class_accuracy)} right",
            least_class,
        ),
        _against_baseline(verdict),
        *(_gate(gate, verdict) for gate in verdict.gates),
        Tile("took", seconds(content.seconds), f"started {moment(content.started)}"),
    )


def missing_reasons(content: ReportContent) -> dict[str, str]:
    """Why each section is missing, if it is: by the section's key."""
    verdict = content.verdict
    if verdict.outcome in _WENT_ON:
        warned = ": see “About this report” under the verdict" if verdict.warnings else ""
        return {key: f"This section could not be made{warned}." for key in _NEEDS}
    where = f" at {verdict.failures[0].component}" if verdict.failures else ""
    end = "is still going on" if verdict.outcome == "running" else f"ended{where} before {{}}"
    warned = " What could not be read is listed under the verdict." if verdict.warnings else ""
    return {key: f"This section is missing: the run {end.format(needed)}.{warned}" for key, needed in _NEEDS.items()}


def layers_table(layers: Sequence[Layer]) -> Table:
    """What `model.summary()` says."""
    rows = ((each.name, each.type, shape(each.output_shape), count(each.parameters)) for each in layers)
    total = ("total", "", "", count(sum(each.parameters for each in layers)))
    return Table(("layer", "type", "output shape", "parameters"), (*rows, total))


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


def matrix_rows(quality: Quality) -> tuple[tuple[Cell, ...], ...]:
    """Rows are actual classes. Mistakes are shaded against the most frequent one, hits by their share."""
    confusion, shares = quality.confusion, quality.confusion_shares
    worst = float((shares * (1 - np.eye(len(shares)))).max()) or 1.0

    def cell(actual: int, predicted: int) -> Cell:
        share = float(shares[actual, predicted])
        name, strength = ("right", share) if actual == predicted else ("wrong", share / worst)
        shade = f"{name}-{max(1, round(_SHADES * strength))}" if share else "none"
        return Cell(int(confusion[actual, predicted]), share, f"{shade} diagonal" if actual == predicted else shade)

    return tuple(tuple(cell(a, p) for p in range(len(shares))) for a in range(len(shares)))


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


def mistakes_table(quality: Quality) -> Table:
    """`frequent_mistakes`, where there is room for more of them."""
    rows = (
        (actual, predicted, count(number), percent(share, 1))
        for actual, predicted, number, share in frequent_mistakes(quality, 20)
    )
    return Table(("true", "taken for", "examples", "of the true class"), tuple(rows))


def gantt_seconds(executions: Sequence[Execution]) -> float:
    """How long the axis of `gantt` is."""
    return max((e.begun + (e.seconds or 0.0) for e in executions if e.begun is not None), default=0.0) or 1.0


def gantt(executions: Sequence[Execution]) -> tuple[GanttRow, ...]:
    """Executions over the time of their run, in their order. One that is still running, or was killed, has no bar."""
    total = gantt_seconds(executions)

    def row(execution: Execution) -> GanttRow:
        words = _EXECUTION_STATES.get(execution.state, (execution.state.lower() or "unknown", "run", "is-open"))
        if execution.begun is None or execution.seconds is None:
            return GanttRow(execution, *words, None, None)
        width = max(_GANTT_UNITS * execution.seconds / total, _LEAST)
        x = min(_GANTT_UNITS * execution.begun / total, _GANTT_UNITS - width)
        return GanttRow(execution, *words, round(x, 1), round(width, 1))

    return tuple(map(row, executions))


def gantt_caption(executions: Sequence[Execution]) -> str:
    """What `gantt` shows, in words."""
    cached = sum(execution.cached for execution in executions)
    caption = f"{len(executions)} executions, {cached} of them answered from the cache (hollow bars)."
    longest = max(executions, key=lambda e: e.seconds or 0.0, default=None)
    if longest is not None and longest.seconds:
        caption += f" The longest: {longest.component}, {seconds(longest.seconds)}."
    return caption


def _bounded(name: str, measured: float | None, value: str, note: str, least: float | None) -> Tile:
    if measured is None:
        return Tile(name, UNKNOWN, "not measured")
    if least is None:
        return Tile(name, value, note)
    required = f"{note}{', ' if note else ''}required {bound(least)}"
    return Tile(name, value, required, "is-bad" if measured < least else "")


def _gate(gate: Gate, verdict: Verdict) -> Tile:
    words, style = _STATES[gate.state]
    if verdict.pushed_version and gate is verdict.gates[-1]:  # the push comes last, and its version says more
        return Tile("pushed version", f"{words.split()[0]} {verdict.pushed_version}", "", style)
    return Tile(gate.name, words, gate.detail, style)


def _against_baseline(verdict: Verdict) -> Tile:
    name = "against the baseline"
    if verdict.baseline_version == "":
        return Tile(name, "first model", "no other was served")
    if verdict.accuracy is None or verdict.baseline_accuracy is None:
        return Tile(name, UNKNOWN, "no baseline")
    version = f"version {verdict.baseline_version}: " if verdict.baseline_version else ""
    change = points(verdict.accuracy - verdict.baseline_accuracy)
    return Tile(name, f"{change} points", f"{version}{percent(verdict.baseline_accuracy)}")
