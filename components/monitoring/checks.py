"""The verdicts: each thing that is compared, with its bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tfx.components.monitoring.distances import distance, share_bound
from mnist_tfx.components.monitoring.distributions import CLASSES, CONFIDENCE, MEASURES, Values
from mnist_tfx.components.monitoring.reference import Reference
from mnist_tfx.components.monitoring.sample import Sample
from mnist_tfx.components.settings import MonitoringSettings

JENSEN_SHANNON, SHARE = "Jensen-Shannon distance", "share"
LOW_CONFIDENCE = "low confidence"
CHECKS = (CLASSES, LOW_CONFIDENCE, *MEASURES, "schema")
"""Those that chance has a part in, which is divided among them."""


@dataclass(frozen=True)
class Check:
    """One thing compared: `value` above `bound` is drift.

    `by` says what the value is; `told` is a finding of TFDV in words, whose value says nothing.
    """

    name: str
    value: float
    bound: float
    by: str
    told: str = ""

    @property
    def drifts(self) -> bool:
        """Whether it is other than in training by more than chance explains and than the recipe allows."""
        return self.value > self.bound

    def as_json(self) -> dict[str, Any]:
        """What a program may want to know."""
        return {**asdict(self), "drift": self.drifts}


@dataclass(frozen=True)
class Answers:
    """What is compared of some images: of a version's, or of one hour's.

    Attributes:
        values: by measure, one an image.
        classes: the number of the most probable class, int64 [n].
    """

    values: Values
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)

    def those(self, chosen: npt.NDArray[np.bool_]) -> Answers:
        """Some of them."""
        return Answers({name: each[chosen] for name, each in self.values.items()}, self.classes[chosen])


def compare(answers: Answers, reference: Reference, settings: MonitoringSettings, chance: float) -> Iterator[Check]:
    """The distributions of answers beside the reference's; `chance` is that of each check."""
    counts = {CLASSES: (reference.classes, np.bincount(answers.classes, minlength=len(reference.classes)))}
    counts |= {name: (each.counts, each.count(answers.values[name])) for name, each in reference.histograms.items()}
    for name, (expected, found) in counts.items():
        value, bound = distance(expected, found, chance)
        yield Check(name, value, max(bound, settings.max_distance), JENSEN_SHANNON)
    low = int((answers.values[CONFIDENCE] < settings.low_confidence).sum())
    low_then = reference.less_confident(settings.low_confidence)
    by_chance = share_bound((low_then, reference.images), (low, len(answers)), chance)
    allowed = low_then / reference.images + settings.max_more_low_confidence
    yield Check(LOW_CONFIDENCE, low / len(answers), max(by_chance, allowed), SHARE)


def check_files(sample: Sample, settings: MonitoringSettings, *, sizes: bool) -> Iterator[Check]:
    """Whether the images that were sent can be decoded, and (`sizes`) have the model's size."""
    drawn = len(sample.images) + sample.unreadable
    yield Check("unreadable", sample.unreadable / max(drawn, 1), settings.max_unreadable, SHARE)
    if sizes and len(sample.images):
        yield Check("other size", float(sample.other_size.mean()), settings.max_other_size, SHARE)
