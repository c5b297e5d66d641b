"""How far a model's probabilities are from how often it is right, and the one number that mends most of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from mnist_tfx.components.evaluator.quality import CALIBRATION_BINS

_LARGEST = 10.0  # and its inverse the smallest
# Standard deviation of the temperature's logarithm before anything is seen: where all of a few examples are right, the
# likeliest temperature would be 0.
_PRIOR = 0.5
Floats = npt.NDArray[np.float64]


def fit_temperature(log_probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    """The temperature for which `tempered` probabilities fit the labels best (Guo et al. 2017, section 4.2).

    Args:
        log_probabilities: [N, classes], of examples that the model was not trained on.
        labels: int64 [N].
    """

    def loss(log_temperature: float) -> float:
        likelihood = tempered(log_probabilities, np.exp(log_temperature))[np.arange(len(labels)), labels]
        return float(-likelihood.sum() + (log_temperature / _PRIOR) ** 2 / 2)

    bound = float(np.log(_LARGEST))
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def tempered(log_probabilities: Floats, temperature: float) -> Floats:
    """The logarithms of `softmax(log_probabilities / temperature)`, [N, classes]; the likeliest class stays."""
    scaled = log_probabilities / temperature
    return np.asarray(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))


def expected_calibration_error(probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Mean distance of confidence from accuracy over bins of confidence, weighted by their examples."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))
