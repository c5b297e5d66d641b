"""All of it: what a model was asked in a span of time, and whether that is like what it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow_metadata.proto.v0 import schema_pb2

from mnist_tfx.components.data_gate.executor import read_statistics
from mnist_tfx.components.live.model import stored_versions
from mnist_tfx.components.monitoring.checks import CHECKS, Answers, Check, check_files, compare
from mnist_tfx.components.monitoring.distributions import LAYOUT, Values, measure
from mnist_tfx.components.monitoring.records import log_files
from mnist_tfx.components.monitoring.reference import Reference, mix, read_references
from mnist_tfx.components.monitoring.sample import Sample, read_logs
from mnist_tfx.components.monitoring.schema_checks import check_schema
from mnist_tfx.components.settings import MonitoringSettings
from mnist_tfx.contract.errors import PipelineError, unknown_name
from mnist_tfx.contract.names import DATA_STATISTICS_PATH, TEST

_SHOWN = 24  # images that look least like training data
_BY_TFDV = 1000  # the most images that TFDV is shown: encoding them takes longer than all the rest


@dataclass(frozen=True)
class Unusual:
    """An image far from those of split test; `off` is its measure `layout`."""

    image: npt.NDArray[np.uint8]
    answer: str
    confidence: float
    off: float


@dataclass(frozen=True)
class Hour:
    """What one hour brought; no checks: too few images to say anything."""

    begin: datetime
    images: int
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Watched:
    """One version; no checks: too few images to say anything.

    Attributes:
        version: its number.
        images: how many the logs have.
        sampled: how many of them were looked at.
        checks: of the whole span.
        hours: those with images.
        answers: what was compared.
        reference: with what.
        unusual: the images that look least like training data, the strangest first.
    """

    version: int
    images: int
    sampled: int
    checks: tuple[Check, ...]
    hours: tuple[Hour, ...]
    answers: Answers = field(repr=False)
    reference: Reference = field(repr=False)
    unusual: tuple[Unusual, ...] = field(repr=False)

    @property
    def drifts(self) -> bool:
        """Whether any check of the span, or of an hour, says so."""
        return any(check.drifts for check in self.all_checks())

    def all_checks(self) -> Iterator[Check]:
        """Of the span and of its hours."""
        yield from self.checks
        for hour in self.hours:
            yield from hour.checks


@dataclass(frozen=True)
class Report:
    """What monitoring found of a model."""

    model: str
    logs: str
    since: datetime
    until: datetime
    min_images: int
    versions: tuple[Watched, ...]
    notes: tuple[str, ...]

    @property
    def drifts(self) -> bool:
        """Whether any version's traffic does."""
        return any(each.drifts for each in self.versions)

    def as_json(self) -> dict[str, Any]:
        """What a program may want to know."""
        return {
            "model": self.model,
            "logs": self.logs,
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "drift": self.drifts,
            "says": self.sentence(),
            "notes": self.notes,
            "versions": [
                {
                    "version": each.version,
                    "images": each.images,
                    "sampled": each.sampled,
                    "drift": each.drifts,
                    "checks": [check.as_json() for check in each.checks],
                    "hours": [
                        {
                            "begin": hour.begin.isoformat(),
                            "images": hour.images,
                            "checks": [check.as_json() for check in hour.checks],
                        }
                        for hour in each.hours
                    ],
                }
                for each in self.versions
            ],
        }

    def sentence(self) -> str:
        """The verdict in one line."""
        if self.drifts:
            names = {check.name: None for each in self.versions for check in each.all_checks() if check.drifts}
            return f"drift: what {self.model} is asked is not like what it was trained on, by {', '.join(names)}"
        if not any(each.checks for each in self.versions):
            return f"too few to say: {self.model} was asked less than {self.min_images} images in this time"
        return f"in order: what {self.model} is asked is like what it was trained on"


def watch(
    model: str,
    serving_dir: str,
    schema: schema_pb2.Schema,
    settings: MonitoringSettings,
    *,
    since: datetime,
    version: int | None = None,
    any_size: bool = False,
) -> Report:
    """Reads the logs and compares.

    Args:
        model: its name in the logs.
        serving_dir: base path of the served model, whose versions hold their references.
        schema: of its data.
        settings: with `logs` given.
        since: what was answered before is not looked at.
        version: look at this one only; None: at all.
        any_size: images of other sizes than the model's are nothing unusual.

    Raises:
        PipelineError: there are no logs, or no version has a reference, or one is damaged; with the remedy.
        UsageError: there is no such version.
    """
    folders = {each.number: each.folder for each in stored_versions(serving_dir)}
    if version is not None and version not in folders:
        raise unknown_name("version", str(version), map(str, folders))
    wanted = {each: folder for each, folder in folders.items() if version in (None, each)}
    references = {each: found for each, folder in wanted.items() if (found := read_references(folder))}
    if not references:
        raise PipelineError(
            f"no version in {serving_dir} has a reference to compare with: they were pushed before there was any. "
            "Train and push one anew: mnist-tfx run --no-cache"
        )
    if not log_files(settings.logs):
        raise PipelineError(
            f"there are no request logs {settings.logs}-*. Have the server write them: mnist-tfx serve --log-requests; "
            "or name their prefix with --logs."
        )
    logs = read_logs(
        settings.logs,
        model,
        {each: found[0].image_shape for each, found in references.items()},
        since=since.timestamp(),
        max_images=settings.max_images,
        min_images=settings.min_images,
    )
    return Report(
        model=model,
        logs=settings.logs,
        since=since,
        until=datetime.now(UTC),
        min_images=settings.min_images,
        versions=tuple(
            _watched(each, logs.samples[each], references[each], folders[each], schema, settings, any_size=any_size)
            for each in sorted(logs.samples)
        ),
        notes=tuple(logs.notes),
    )


def _watched(
    version: int,
    sample: Sample,
    references: Sequence[Reference],
    folder: str,
    schema: schema_pb2.Schema,
    settings: MonitoringSettings,
    *,
    any_size: bool,
) -> Watched:
    first = references[0]  # what it shares with the others
    probabilities = sample.probabilities.reshape(len(sample.images), len(first.class_names))  # there may be none
    values = measure(sample.images, probabilities, first.layout)
    answers = Answers(values, probabilities.argmax(axis=1))
    reference = mix(references, values, answers.classes)
    begins = sample.seconds // 3600 * 3600
    by_hour = {hour: answers.those(begins == hour) for hour in sorted(sample.seen_by_hour)}
    speaking = sum(len(each) >= settings.min_images for each in by_hour.values())
    # One hour alone is the span itself.
    chance = settings.chance / (len(CHECKS) * (1 + (speaking if len(by_hour) > 1 else 0)))

    def judged(some: Answers) -> Iterator[Check]:
        if len(some) >= settings.min_images:
            yield from compare(some, mix(references, some.values, some.classes), settings, chance)

    def of_the_whole() -> Iterator[Check]:
        if len(answers) + sample.unreadable < settings.min_images:
            return
        yield from check_files(sample, settings, sizes=not any_size)
        if len(answers) < settings.min_images:
            return
        yield from judged(answers)
        some = np.random.default_rng(0).permutation(len(answers))[:_BY_TFDV]
        trained_on = read_statistics(f"{folder}/{DATA_STATISTICS_PATH}", [TEST]).get(TEST)
        yield from check_schema(sample.images[some], answers.classes[some], reference, schema, trained_on, chance)

    return Watched(
        version=version,
        images=sample.seen,
        sampled=len(answers),
        checks=tuple(of_the_whole()),
        hours=tuple(
            Hour(datetime.fromtimestamp(hour, UTC), sample.seen_by_hour[hour], tuple(judged(some)))
            for hour, some in by_hour.items()
        ),
        answers=answers,
        reference=reference,
        unusual=_unusual(sample, values, reference),
    )


def _unusual(sample: Sample, values: Values, reference: Reference) -> tuple[Unusual, ...]:
    off = values[LAYOUT]
    return tuple(
        Unusual(
            image=sample.images[index],
            answer=reference.class_names[int(sample.probabilities[index].argmax())],
            confidence=float(sample.probabilities[index].max()),
            off=float(off[index]),
        )
        for index in np.argsort(-off, kind="stable")[:_SHOWN]
    )
