"""Everything that a report shows, as plain data: collectors fill it, `components.report.page` draws it.

What an evaluation measured is the Evaluator's to say (`Quality`), a run and what came of it `components.report.run`'s.

A section is None where the run did not get that far, or where it could not be made; then `Verdict.warnings` says why.
Text is as found, never escaped: names of classes and files may hold anything. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tfx.components.data_gate.findings import Distance, Finding
from mnist_tfx.components.evaluator.quality import Quality
from mnist_tfx.components.infra_validator.checks import Check
from mnist_tfx.components.report.run import Execution, Plan
from mnist_tfx.components.report.verdict import Verdict

Image = npt.NDArray[np.uint8]  # [height, width, channels], channels 1 or 3


@dataclass(frozen=True)
class SplitData:
    """One split, from its statistics."""

    name: str
    examples: int
    class_counts: tuple[int, ...]  # by class number; empty: unknown
    # uint64 [256]: pixels (of all channels) by value 0..255, counted over `intensity_images` images; None: unknown.
    intensity: npt.NDArray[np.uint64] | None = None
    intensity_images: int = 0


@dataclass(frozen=True)
class Sample:
    """One labeled image of split train."""

    image: Image
    label: int  # class number


@dataclass(frozen=True)
class Data:
    """Section 2."""

    class_names: tuple[str, ...]
    splits: tuple[SplitData, ...]
    samples: tuple[Sample, ...]  # up to 25, for a 5 x 5 grid
    findings: tuple[Finding, ...] | None  # empty: no anomaly; None: nobody looked for any
    distances: tuple[Distance, ...]  # drift and skew; empty: unknown
    compared_with_live: bool | None  # None: unknown; False: there were no live model's data to drift from


@dataclass(frozen=True)
class Epoch:
    """One epoch. What `training.json` of an older run lacks is None."""

    epoch: int  # from 1
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    learning_rate: float | None = None
    input_wait_seconds: float | None = None


@dataclass(frozen=True)
class Calibration:
    """The calibration in the exported model, and the expected calibration error on split eval without and with it."""

    temperature: float
    error_before: float
    error_after: float
    bend: float = 0.0  # of runs that knew none


@dataclass(frozen=True)
class Training:
    """Section 4; most fields are those of the Trainer's log (`components.trainer.training`)."""

    epochs: tuple[Epoch, ...]
    monitor: str  # what early stopping watched, such as "val_accuracy"; empty: unknown
    best_epoch: int  # from 1: whose weights early stopping kept
    stopped: str  # why training ended, in words
    seconds: float
    examples_per_second: float
    train_examples: int
    resumed_after_epoch: int  # 0: not resumed
    devices: tuple[str, ...]
    teachers: tuple[float, ...]  # the accuracy on split eval of each model that was learned from
    # By the tuner or the range test, in place of the recipe's; by their full keys.
    settings_found: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None  # None: the probabilities are as they were trained
    warm_start: str = ""  # what it began with, in words; empty: it was not to begin with a served model

    @property
    def input_wait_seconds(self) -> float | None:
        """How long training waited for input in all; None: not recorded."""
        waits = [epoch.input_wait_seconds for epoch in self.epochs if epoch.input_wait_seconds is not None]
        return sum(waits) if waits else None


@dataclass(frozen=True)
class Layer:
    """One row of Keras' `model.summary()`; None is the number of images."""

    name: str
    type: str
    output_shape: tuple[int | None, ...]
    parameters: int


@dataclass(frozen=True)
class Model:
    """Section 3: what is trained."""

    layers: tuple[Layer, ...]  # from the first on; empty: an older run, which did not note them
    weights: Mapping[str, npt.NDArray[np.floating[Any]]]  # by layer and name, such as "dense/kernel"


@dataclass(frozen=True)
class LookedAt:
    """One example of split test with what the model says of it."""

    image: Image
    actual: int  # class number
    predicted: int
    probabilities: tuple[float, ...]  # by class number
    position: int  # number of the example in split test, from 0, in the order of its files

    @property
    def confidence(self) -> float:
        """Probability of the predicted class."""
        return self.probabilities[self.predicted]


@dataclass(frozen=True)
class Filter:
    """Incoming weights of one unit of the first layer, as an image."""

    unit: int
    image: Image  # 128 is weight 0, 1 is -`LookAtIt.filter_scale`, 255 is +`LookAtIt.filter_scale`


@dataclass(frozen=True)
class LookAtIt:
    """Section 6, from one pass of the exported model over split test."""

    class_names: tuple[str, ...]
    mistakes: tuple[LookedAt, ...]  # up to 24, the most confident first
    uncertain: tuple[LookedAt, ...]  # up to 24, the least certain first
    drawn: tuple[LookedAt, ...]  # up to 30, at random: the same of the same data
    filters: tuple[Filter, ...]  # those with the largest weights first; empty: the first layer does not see pixels
    filter_scale: float  # the largest absolute weight shown
    units: int  # in the first layer, of which `filters` shows some


@dataclass(frozen=True)
class Tensor:
    """An input or output of a signature; None is a size that varies."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Signature:
    """One way to call the model."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Serving:
    """Section 7."""

    signatures: tuple[Signature, ...]
    parameters: int  # numbers in the model's variables
    model_bytes: int  # of all files of the exported model
    warm_up: tuple[tuple[str, int], ...]  # signature and how many images its warm-up record holds
    blessed: bool | None  # None: not validated
    checks: tuple[Check, ...]  # of the infra validator
    latencies_ms: tuple[float, ...]  # of requests of one image, in the order in which they were made
    pushed_to: str | None


@dataclass(frozen=True)
class Lineage(Plan):
    """Section 8: what was decided before the run, and what was executed."""

    executions: tuple[Execution, ...] = ()  # in the order in which they began


@dataclass(frozen=True)
class ReportContent:
    """The whole report of one run."""

    dataset: str
    run_id: str
    started: datetime | None  # UTC
    seconds: float | None
    made: datetime  # UTC: when this report was made
    verdict: Verdict
    data: Data | None = None
    model: Model | None = None
    training: Training | None = None
    quality: Quality | None = None
    look: LookAtIt | None = None
    serving: Serving | None = None
    lineage: Lineage | None = None


@dataclass(frozen=True)
class Drawn:
    """What the artifacts alone decide of a report, drawn: only verdict, lineage and times differ between runs."""

    sections: Mapping[str, str]  # HTML, by the section's key
    card: str  # Markdown: what stands between the model card's head and the run's cautions and warnings
    warnings: tuple[str, ...]  # what the report warns of


@dataclass(frozen=True)
class IndexRow:
    """One run in the index of all runs."""

    run_id: str
    dataset: str
    started: datetime | None  # UTC
    seconds: float | None
    verdict: str  # in a few words, as `mnist-tfx runs` says it
    good: bool  # whether nothing failed and nothing was rejected
    accuracy: float | None
    report: str | None  # relative URL of the report; None: none was made
