"""What is compared of images and of answers: a number of each image, counted in bins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE, ENTROPY, LAYOUT = "confidence", "entropy", "layout"
CLASSES = "classes"  # how often each is the answer
MEASURES: Mapping[str, str] = {
    CONFIDENCE: "the highest probability",
    ENTROPY: "entropy of the probabilities, in shares of that of a guess",
    "brightness": "mean of an image's pixels, 0 to 1",
    "contrast": "standard deviation of an image's pixels",
    "sharpness": "mean difference of neighbouring pixels",
    "direction": "which way edges run, -1 to 1: turned and mirrored images differ",
    LAYOUT: "how far an image's areas are from the usual, in standard deviations",
}
"""What is measured of each image, and in words."""

_BINS = 10  # tenths of the reference: each bin can then change by as much
# Differences below mean nothing to anybody: those of floats on other hardware must not move an image into another bin.
_DECIMALS = {CONFIDENCE: 3, ENTROPY: 3}
_OTHER_DECIMALS = 4
_GRID = 8  # areas along each side of an image
_LEAST_DEVIATION = 0.05  # of an area, where the reference's images hardly differ
_LEAST_PROBABILITY = 1e-30

Values = Mapping[str, npt.NDArray[np.float64]]
"""By measure, one value an image."""


@dataclass(frozen=True)
class Layout:
    """How bright each area of an image usually is: mean and standard deviation, float64 [areas]."""

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]

    @classmethod
    def of(cls, images: npt.NDArray[np.uint8]) -> Layout:
        """Of images, uint8 [N, height, width, channels]."""
        areas = _areas(images)
        return cls(areas.mean(axis=0), np.maximum(areas.std(axis=0), _LEAST_DEVIATION))

    def distance(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Root mean square over the areas of how many standard deviations each is off, [N]."""
        off = (_areas(images) - self.mean) / self.deviation
        return np.sqrt(np.square(off).mean(axis=1))


@dataclass(frozen=True)
class Histogram:
    """Counts between edges; the first and the last bin are open: edges float64 [bins - 1], counts int64 [bins]."""

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: npt.NDArray[np.float64], measure: str) -> Histogram:
        """With tenths of the values as bins; equal ones share one."""
        step = 10.0 ** -_DECIMALS.get(measure, _OTHER_DECIMALS)
        edges = np.unique(np.round(np.quantile(values, np.arange(1, _BINS) / _BINS) / step) * step)
        # An edge at the very end, as where most answers have a confidence of 1, would part what is the same.
        edges = edges[(edges >= values.min() + step / 2) & (edges <= values.max() - step / 2)]
        return cls(edges, count(values, edges))

    def count(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Other values in the same bins."""
        return count(values, self.edges)


def count(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How many values lie in each bin."""
    return np.bincount(np.digitize(values, edges), minlength=len(edges) + 1)


def measure(images: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.float32], layout: Layout) -> Values:
    """All measures of images, uint8 [N, height, width, channels], and of the answers to them, [N, classes]."""
    grey = images.mean(axis=3, dtype=np.float32) / 255
    across, down = np.diff(grey, axis=2), np.diff(grey, axis=1)
    p = np.maximum(probabilities.astype(np.float64), _LEAST_PROBABILITY)
    values: dict[str, npt.NDArray[Any]] = {
        CONFIDENCE: p.max(axis=1),
        ENTROPY: -(p * np.log(p)).sum(axis=1) / np.log(p.shape[1]),
        "brightness": grey.mean(axis=(1, 2)),
        "contrast": grey.std(axis=(1, 2)),
        "sharpness": (np.abs(across).mean(axis=(1, 2)) + np.abs(down).mean(axis=(1, 2))) / 2,
        "direction": _direction(across[:, :-1], down[:, :, :-1]),
        LAYOUT: layout.distance(images),
    }
    return {name: each.astype(np.float64) for name, each in values.items()}


def _direction(across: npt.NDArray[np.float32], down: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of the structure tensor, summed over an image: twice its mixed term over its trace; 0 where there is no edge."""
    trace = (np.square(across) + np.square(down)).sum(axis=(1, 2))
    return 2 * (across * down).sum(axis=(1, 2)) / np.maximum(trace, 1e-6)


def _areas(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The mean of each area, 0 to 1, float64 [N, areas]."""
    grey = images.mean(axis=3, dtype=np.float32) / 255
    for axis in (1, 2):
        size = grey.shape[axis]
        starts = np.unique(np.arange(min(_GRID, size)) * size // min(_GRID, size))
        widths = np.diff([*starts, size]).reshape([-1 if each == axis else 1 for each in range(3)])
        grey = np.add.reduceat(grey, starts, axis=axis) / widths
    return grey.reshape(len(grey), grey.shape[1] * grey.shape[2]).astype(np.float64)
