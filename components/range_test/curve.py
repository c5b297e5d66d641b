"""The range test's curve, and what it suggests. Imports no TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tfx.components.range_test import MAX_RATE, MIN_RATE, STEPS
from mnist_tfx.contract.errors import PipelineError

# Chosen on real data with Adam. On Fashion-MNIST's hidden layers of 100 and 50 it gives 0.003 to 0.005, by seed and the
# order of the data, where 0.0045 was the best of eight rates after five epochs; on both default recipes it is within a
# factor of about 2 of theirs. A tenth of the lowest point's rate differs fourfold between seeds (tenfold on MNIST's
# default), as the valley is flat; that of the steepest descent is 6 to 20 times too low.
RULE = "the lowest rate by which the smoothed loss has done 95 % of its fall"

_SMOOTHED_OVER = 1 / 30  # of the test's steps: what the losses' moving average spans, and how far it lags behind
_BLOWN_UP = 3.0  # times the lowest smoothed loss: there is nothing more to see
_DONE = 0.95  # of the fall from the start to the lowest point
_MIN_FALL = 0.1  # of the loss at the start: less is noise, not learning
_MIN_RISE = 0.1  # of that fall, after the lowest point: else the curve may go on falling


@dataclass(frozen=True)
class Curve:
    """Loss by learning rate, a value per step; the rates rise exponentially.

    Attributes:
        rates: float64 [steps].
        losses: float64 [steps], of each step's batch before the step.
        smoothed: float64 [steps], the losses' exponential moving average with bias correction.
        settled: after how many steps that average is one of several batches.
    """

    rates: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]
    smoothed: npt.NDArray[np.float64]
    settled: int


@dataclass(frozen=True)
class Suggestion:
    """A learning rate, and what it follows from.

    Attributes:
        learning_rate: the suggestion, by `RULE`, with two digits: the curve does not tell more.
        lowest: the rate at which the smoothed loss is lowest.
        steepest: the rate at which it falls fastest per factor of the rate; told for comparison.
    """

    learning_rate: float
    lowest: float
    steepest: float

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"learning_rate": self.learning_rate, "lowest": self.lowest, "steepest": self.steepest, "rule": RULE}


def measure(
    train_step: Callable[[float], float], min_rate: float = MIN_RATE, max_rate: float = MAX_RATE, steps: int = STEPS
) -> Curve:
    """Trains with a rate that rises exponentially from step to step, until the last rate or until the loss blows up.

    Args:
        train_step: does one step at a learning rate; returns the loss before it.
        min_rate: the first rate.
        max_rate: the last rate.
        steps: how many.
    """
    rates = np.geomspace(min_rate, max_rate, steps)
    losses: list[float] = []
    smoothed: list[float] = []
    span = max(2.0, steps * _SMOOTHED_OVER)
    kept = 1.0 - 1.0 / span
    average, lowest = 0.0, math.inf
    for number, rate in enumerate(rates, start=1):
        loss = train_step(float(rate))
        if not math.isfinite(loss):
            break
        average = kept * average + (1.0 - kept) * loss
        corrected = average / (1.0 - kept**number)  # as in Adam: the average began at 0
        losses.append(loss)
        smoothed.append(corrected)
        lowest = min(lowest, corrected)
        if corrected > _BLOWN_UP * lowest:
            break
    return Curve(rates[: len(losses)], np.array(losses), np.array(smoothed), round(span))


def suggest(curve: Curve, min_rate: float = MIN_RATE, max_rate: float = MAX_RATE) -> Suggestion:
    """Reads a learning rate off a curve.

    Raises:
        PipelineError: the curve has no minimum inside the range.
    """
    smoothed = curve.smoothed
    if not len(smoothed):
        raise _refusal(f"it is no finite number at {min_rate:g}", f"a lower beginning: --min-rate {min_rate / 1000:g}")
    begin = min(curve.settled, len(smoothed) - 1)
    at = begin + int(smoothed[begin:].argmin())
    fall = float(smoothed[begin] - smoothed[at])
    if fall < _MIN_FALL * abs(smoothed[begin]):
        if smoothed[-1] > _BLOWN_UP * smoothed.min() or curve.rates[-1] < max_rate * (1 - 1e-9):
            raise _refusal(f"it only rises, from {min_rate:g} on", f"a lower beginning: --min-rate {min_rate / 1000:g}")
        raise _refusal(
            f"it is flat, between {smoothed[at]:.3g} and {smoothed.max():.3g}",
            f"a wider range: --min-rate {min_rate / 100:g} --max-rate {max_rate * 100:g}",
        )
    if smoothed[-1] - smoothed[at] < _MIN_RISE * fall and curve.rates[-1] >= max_rate * (1 - 1e-9):
        raise _refusal(
            f"it has not risen again at {max_rate:g}",
            f"a higher end: --max-rate {max_rate * 100:g}. Where the loss is near 0 by then, the net learns the data "
            "by heart at many rates: training.label_smoothing=0.1 keeps a minimum in the curve",
        )
    lowest = float(curve.rates[at])
    slope = np.gradient(smoothed[begin : at + 1], np.log(curve.rates[begin : at + 1]))
    steepest = float(curve.rates[begin + int(slope.argmin())])
    done = begin + int((smoothed[begin:] <= smoothed[begin] - _DONE * fall).argmax())
    return Suggestion(float(f"{curve.rates[done]:.1e}"), lowest, steepest)


def _refusal(reason: str, remedy: str) -> PipelineError:
    return PipelineError(
        f"no learning rate can be suggested: the loss's curve has no minimum, {reason}. Try `mnist-tfx lr-find` with "
        f"{remedy}."
    )
