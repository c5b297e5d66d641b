"""How far a model's probabilities are from how often it is right, and the one number that mends most of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

# Guo et al., "On Calibration of Modern Neural Networks" (2017): section 3, 15 bins; section 4.2, the temperature.
_BINS = 15
_LARGEST = 10.0  # and its inverse the smallest
# Standard deviation of the temperature's logarithm before anything is seen: where all of a few examples are right, the
# likeliest temperature would be 0.
_PRIOR = 0.5
Floats = npt.NDArray[np.float64]


def fit_temperature(log_probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    """The temperature T for which `softmax(log_probabilities / T)` fits the labels best; the likeliest class stays.

    Args:
        log_probabilities: [N, classes], of examples that the model was not trained on.
        labels: int64 [N].
    """

    def loss(log_temperature: float) -> float:
        scaled = log_probabilities / np.exp(log_temperature)
        normalizer = np.logaddexp.reduce(scaled, axis=1)
        likelihood = scaled[np.arange(len(labels)), labels] - normalizer
        return float(-likelihood.sum() + (log_temperature / _PRIOR) ** 2 / 2)

    bound = float(np.log(_LARGEST))
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def expected_calibration_error(probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Mean distance of confidence from accuracy over bins of confidence, weighted by their examples."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(labels))
