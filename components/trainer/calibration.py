"""How far a model's probabilities are from how often it is right, and the two numbers that mend most of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from mnist_tfx.components.evaluator.quality import CALIBRATION_BINS

_LARGEST = 10.0  # and its inverse the smallest temperature
# Standard deviations, before anything is seen, of the temperature's logarithm and of the bend: where all of a few
# examples are right, the likeliest temperature would be 0.
_PRIOR = np.array([0.5, 0.4])
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """How the log probability by which a class is behind the likeliest one becomes the one that is told.

    `behind` becomes `behind * (1 + behind)**bend / temperature`. Without a bend this is temperature scaling (Guo et al.
    2017, section 4.2), which cannot help a model that is not sure enough where it is sure and too sure where it is not,
    as label smoothing leaves one (`benchmarks/accuracy.md`). It rises with `behind`, so the order of the classes stays
    (Rahimi et al. 2020, "Intra Order-Preserving Functions for Calibration of Multi-Class Neural Networks").
    """

    temperature: float = 1.0
    bend: float = 0.0  # -1 or more: below, it would not rise

    def scores(self, behind: Any) -> Any:
        """Scores, whose softmax are the calibrated probabilities, of what classes are behind: an array or a tensor."""
        return -behind * (1.0 + behind) ** self.bend / self.temperature

    def __call__(self, log_probabilities: Floats) -> Floats:
        """Log probabilities, [N, classes], to calibrated ones."""
        scores = self.scores(log_probabilities.max(axis=1, keepdims=True) - log_probabilities)
        return np.asarray(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))


def fit_calibration(log_probabilities: Floats, labels: npt.NDArray[np.int64]) -> Calibration:
    """The calibration that makes the labels likeliest.

    Args:
        log_probabilities: [N, classes], of examples that the model was not trained on.
        labels: int64 [N].
    """

    def of(parameters: Floats) -> Calibration:
        return Calibration(float(np.exp(parameters[0])), float(parameters[1]))

    def loss(parameters: Floats) -> float:
        likelihood = of(parameters)(log_probabilities)[np.arange(len(labels)), labels]
        return float(-likelihood.sum() + np.square(parameters / _PRIOR).sum() / 2)

    bound = float(np.log(_LARGEST))
    return of(minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-bound, bound), (-1.0, None)]).x)


def expected_calibration_error(probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Mean distance of confidence from accuracy over bins of confidence, weighted by their examples."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))
