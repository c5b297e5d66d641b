"""The table of what was measured over the whole split, beside the baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mnist_tfx.components.evaluator.quality import Overall, Quality
from mnist_tfx.components.report.page.words import bound, change, number, percent, points


@dataclass(frozen=True)
class Measure:
    """One number that TFMA measured over the whole split."""

    name: str
    of: Callable[[Overall], float | None]
    words: Callable[[float | None], str]
    change: Callable[[float | None], str]
    more_is_better: bool


@dataclass(frozen=True)
class MeasureRow:
    """A measure of a model and of its baseline, in words."""

    name: str
    value: str
    baseline: str
    change: str
    style: str
    bound: str


MEASURES = (
    Measure("accuracy", lambda o: o.accuracy, percent, points, True),
    Measure("top-2 accuracy", lambda o: o.top_2_accuracy, percent, points, True),
    Measure("loss (cross entropy, nats)", lambda o: o.loss, number, change, False),
    Measure("expected calibration error", lambda o: o.expected_calibration_error, number, change, False),
)


def change_style(difference: float | None, more_is_better: bool) -> str:
    """The class of the style sheet for a change, empty for none worth a colour."""
    if difference is None or abs(difference) < 5e-5:
        return ""
    return "is-good" if (difference > 0) == more_is_better else "is-open"


def overall_rows(quality: Quality) -> tuple[MeasureRow, ...]:
    """Every measure, with its bound where it has one."""
    rows = []
    for measure in MEASURES:
        value = measure.of(quality.overall)
        before = measure.of(quality.baseline) if quality.baseline is not None else None
        difference = value - before if value is not None and before is not None else None
        rows.append(
            MeasureRow(
                measure.name,
                measure.words(value),
                measure.words(before),
                measure.change(difference),
                change_style(difference, measure.more_is_better),
                _bounds(quality) if measure.name == "accuracy" else "",
            )
        )
    return tuple(rows)


def _bounds(quality: Quality) -> str:
    words = [f"≥ {bound(quality.min_accuracy)}"] if quality.min_accuracy is not None else []
    if quality.max_accuracy_drop is not None:
        words.append(f"drop ≤ {bound(quality.max_accuracy_drop).rstrip('%')} points")
    return ", ".join(words)
