"""How good a model is, as plain data. No TensorFlow; `components.evaluator.result` reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Guo et al., "On Calibration of Modern Neural Networks" (2017), section 3: 15 bins.
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Scores:
    """What TFMA measured of one class; `recall` is the accuracy within the class, which the bound is on."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassQuality:
    """One class of split test."""

    name: str
    examples: int
    scores: Scores
    baseline: Scores | None  # None: evaluated without a baseline, or the candidate itself is the baseline


@dataclass(frozen=True)
class SpanQuality:
    """The examples of split test that are of one span; span 1 is what the dataset began with."""

    number: int
    examples: int
    accuracy: float
    baseline_accuracy: float | None  # None: evaluated without a baseline, or the candidate itself is the baseline

    def __str__(self) -> str:
        change = "" if self.baseline_accuracy is None else f" ({self.accuracy - self.baseline_accuracy:+.4f})"
        return f"{self.accuracy:.4f}{change} on the {self.examples:,} examples of span {self.number}"


@dataclass(frozen=True)
class ConfidenceBin:
    """The examples whose most probable class has a probability in [lower, upper) (the last: [lower, 1])."""

    lower: float
    upper: float
    examples: int
    mean_confidence: float  # 0 where there are no examples
    accuracy: float  # 0 where there are no examples


@dataclass(frozen=True)
class Overall:
    """What TFMA measured over the whole of split test, by its names; None: the evaluation does not hold it."""

    accuracy: float
    balanced_accuracy: float | None  # mean of the classes' accuracies
    macro_f1: float | None  # mean of the classes' F1
    loss: float | None  # cross entropy, nats
    top_2_accuracy: float | None
    expected_calibration_error: float | None
    auc: float | None = None  # of two classes: area under the ROC curve
    pr_auc: float | None = None  # of two classes: average precision of class 1


@dataclass(frozen=True)
class Quality:
    """How good a model is, all of it as TFMA measured it on split test."""

    examples: int
    overall: Overall
    baseline: Overall | None  # None: evaluated without a baseline, or the candidate itself is the baseline
    baseline_version: str | None  # "": the candidate itself, as no other was served; None: no baseline or unknown
    classes: tuple[ClassQuality, ...]  # by class number
    confusion: npt.NDArray[np.int64]  # [actual, predicted], sums to `examples`
    broken_bounds: tuple[str, ...]  # in words; empty if the model is good enough
    confidence: tuple[ConfidenceBin, ...]  # reliability diagram, accuracy by confidence; empty: not recorded
    spans: tuple[SpanQuality, ...] = ()  # by number; empty: nothing was added to the data
    min_accuracy: float | None = None  # the bounds; None: none is set
    min_class_accuracy: float | None = None
    max_accuracy_drop: float | None = None
    min_span_accuracy: float | None = None
    max_first_span_accuracy_drop: float | None = None

    @property
    def accuracy(self) -> float:
        """The share of examples that are classified right."""
        return self.overall.accuracy

    @property
    def confusion_shares(self) -> npt.NDArray[np.float64]:
        """The confusion matrix in shares of the actual class."""
        return self.confusion / np.maximum(self.confusion.sum(axis=1, keepdims=True), 1)

    @property
    def class_accuracy(self) -> dict[str, float]:
        """By class name the share of its examples that are classified right; a class without examples has none."""
        return {each.name: each.scores.recall for each in self.classes if each.examples}

    @property
    def never_recognized(self) -> tuple[str, ...]:
        """The classes none of whose examples is classified right."""
        return tuple(name for name, accuracy in self.class_accuracy.items() if accuracy == 0.0)

    @property
    def worst_class(self) -> tuple[str, float]:
        """Name and accuracy of the class that is classified worst."""
        return min(self.class_accuracy.items(), key=lambda item: item[1])

    @property
    def baseline_accuracy(self) -> float | None:
        """That of the model it was compared with, which may be itself; None: evaluated without a baseline."""
        if self.baseline_version == "":
            return self.accuracy
        return self.baseline.accuracy if self.baseline else None


def disagreements(quality: Quality) -> list[str]:
    """Where an evaluation contradicts itself, in words; none of these may ever be seen."""
    found = []
    total = int(quality.confusion.sum())
    if total != quality.examples:
        found.append(f"The confusion matrix holds {total} examples, TFMA counted {quality.examples}.")
    right = float(np.trace(quality.confusion)) / max(total, 1)
    if not np.isclose(right, quality.accuracy, rtol=0, atol=1e-9):
        found.append(
            f"The confusion matrix has {right:.6f} of its examples on the diagonal, but TFMA's accuracy is "
            f"{quality.accuracy:.6f}."
        )
    return found
