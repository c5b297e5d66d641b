"""The verdict in the page's words and colours, and why a section is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mnist_tfx.components.report.content import ReportContent
from mnist_tfx.components.report.page.words import UNKNOWN, bound, moment, percent, points, seconds
from mnist_tfx.components.report.verdict import Gate, Outcome, State, Verdict


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
    "unknown": ("not known yet", ""),
}
SECTIONS = (
    ("verdict", "Verdict"),
    ("data", "Data"),
    ("training", "Training"),
    ("quality", "Quality"),
    ("look", "Look at it"),
    ("serving", "Serving"),
    ("lineage", "Lineage and time"),
)
_NEEDS = {  # what a section is made from
    "data": "the statistics of its data were there",
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
