"""What a version's requests are compared with: its own answers to split test, and what the images there look like.

Where data were added (`docs/new-data.md`), split test has several kinds of images, a span each, and requests bring
them in other shares than split test has them. So there is a reference of each span, and requests are compared with the
mix of them that they are closest to.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tfx.components.monitoring.distances import Counts, closest_mix
from mnist_tfx.components.monitoring.distributions import CONFIDENCE, MEASURES, Histogram, Layout, Values, measure
from mnist_tfx.components.transform.images import fit_images
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.contract.names import EXAMPLES, FIRST_SPAN, IMAGE, PROBABILITIES, REFERENCE_PATH, SERVING_DEFAULT, SPAN

MAX_IMAGES = 10_000  # the first of a span: memory stays flat, and what more would tell is below the bounds
MAX_BYTES = 256 * 2**20  # of a version's decoded images: of large ones fewer are looked at
LEAST_IMAGES = 100  # of a span that was added; fewer do not say what it looks like
_BATCH = 500
_CONFIDENCE_BINS = 100


@dataclass(frozen=True)
class Reference:
    """Of one pushed version and one span; those of a version have the same bins and layout.

    Attributes:
        images: how many it is made of.
        image_shape: height, width, channels.
        class_names: by class number.
        classes: how often each was the answer, int64 [classes].
        confidence: answers by confidence in bins of a hundredth, int64 [100].
        histograms: by measure.
        layout: what the measure of that name compares with.
    """

    images: int
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    classes: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.int64]
    histograms: dict[str, Histogram]
    layout: Layout

    @classmethod
    def of(
        cls, images: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.float32], class_names: Sequence[str]
    ) -> Reference:
        """Of images, uint8 [N, height, width, channels], and the answers to them, float32 [N, classes]."""
        layout = Layout.of(images)
        values = measure(images, probabilities, layout)
        height, width, channels = images.shape[1:]
        return cls(
            images=len(images),
            image_shape=(height, width, channels),
            class_names=tuple(class_names),
            classes=np.bincount(probabilities.argmax(axis=1), minlength=len(class_names)),
            confidence=_by_hundredths(values),
            histograms={name: Histogram.of(values[name], name) for name in MEASURES},
            layout=layout,
        )

    def of_others(self, values: Values, classes: npt.NDArray[np.int64]) -> Reference:
        """The same of other images, by their measures and the answers to them, int64 [N]."""
        return replace(
            self,
            images=len(classes),
            classes=np.bincount(classes, minlength=len(self.class_names)),
            confidence=_by_hundredths(values),
            histograms={
                name: Histogram(each.edges, each.count(values[name])) for name, each in self.histograms.items()
            },
        )

    def less_confident(self, confidence: float) -> int:
        """How many answers had a lower confidence, in whole hundredths."""
        return int(self.confidence[: round(confidence * _CONFIDENCE_BINS)].sum())

    def as_json(self) -> dict[str, Any]:
        """A few kilobytes."""
        return asdict(self, dict_factory=_with_lists)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Reference:
        """Raises ValueError, KeyError or TypeError for what is none."""
        height, width, channels = content["image_shape"]
        return cls(
            images=content["images"],
            image_shape=(height, width, channels),
            class_names=tuple(content["class_names"]),
            classes=np.array(content["classes"], np.int64),
            confidence=np.array(content["confidence"], np.int64),
            histograms={
                name: Histogram(np.array(each["edges"], np.float64), np.array(each["counts"], np.int64))
                for name, each in content["histograms"].items()
            },
            layout=Layout(np.array(content["layout"]["mean"]), np.array(content["layout"]["deviation"])),
        )


def _with_lists(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in items}


def mix(references: Sequence[Reference], values: Values, classes: npt.NDArray[np.int64]) -> Reference:
    """The mix of a version's references that some requests are closest to: their measures, and answers, int64 [N]."""
    if len(references) == 1:
        return references[0]
    asked = references[0].of_others(values, classes)
    confidence = closest_mix([each.confidence for each in references], asked.confidence)
    return replace(
        asked,
        images=int(confidence.sum()),
        classes=closest_mix([each.classes for each in references], asked.classes),
        confidence=confidence,
        histograms={
            name: Histogram(each.edges, closest_mix([one.histograms[name].counts for one in references], each.counts))
            for name, each in asked.histograms.items()
        },
    )


def make_references(
    model: str, examples: Sequence[str], class_names: Sequence[str], spans: Sequence[int]
) -> list[Reference]:
    """Asks an exported model for the first examples of each span of split test, in signature `serving_default`.

    Args:
        model: the SavedModel.
        examples: gzipped TFRecord files of split test.
        class_names: by class number.
        spans: whose examples they are.

    Returns:
        One for each span that has `LEAST_IMAGES`, and for the first in any case.
    """
    loaded = tf.saved_model.load(model)  # not only its signature: the weights live as long as it
    answer = loaded.signatures[SERVING_DEFAULT]
    image_shape = tuple(loaded.signatures["images"].structured_input_signature[1]["images"].shape[1:])

    @tf.autograph.experimental.do_not_convert
    def answered(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded = tf.io.parse_example(batch, {IMAGE: tf.io.FixedLenFeature([], tf.string)})[IMAGE]
        return fit_images(encoded, image_shape), answer(**{EXAMPLES: batch})[PROBABILITIES]

    of_a_span = min(MAX_IMAGES, max(LEAST_IMAGES, MAX_BYTES // (len(spans) * math.prod(image_shape))))
    found: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]] = []
    for span in spans:
        records = tf.data.TFRecordDataset(examples, compression_type="GZIP")
        if len(spans) > 1:
            records = records.filter(functools.partial(_is_of, span))
        batches = list(records.take(of_a_span).batch(_BATCH).map(answered).as_numpy_iterator())
        if sum(len(images) for images, _ in batches) >= LEAST_IMAGES or (batches and not found):
            images, probabilities = zip(*batches, strict=True)
            found.append((np.concatenate(images), np.concatenate(probabilities)))
    of_all = (np.concatenate([images for images, _ in found]), np.concatenate([answers for _, answers in found]))
    whole = Reference.of(*of_all, class_names)
    if len(found) == 1:
        return [whole]
    return [
        whole.of_others(measure(images, probabilities, whole.layout), probabilities.argmax(axis=1))
        for images, probabilities in found
    ]


@tf.autograph.experimental.do_not_convert
def _is_of(span: int, record: tf.Tensor) -> tf.Tensor:
    feature = tf.io.FixedLenFeature([], tf.int64, default_value=FIRST_SPAN)
    return tf.equal(tf.io.parse_single_example(record, {SPAN: feature})[SPAN], span)


def _by_hundredths(values: Values) -> Counts:
    hundredths = np.minimum((values[CONFIDENCE] * _CONFIDENCE_BINS).astype(int), _CONFIDENCE_BINS - 1)
    return np.bincount(hundredths, minlength=_CONFIDENCE_BINS)


def write_references(version: str, references: Sequence[Reference]) -> None:
    """Puts them into a version's folder."""
    with tf.io.gfile.GFile(os.path.join(version, REFERENCE_PATH), "w") as file:
        json.dump([each.as_json() for each in references], file)


def read_references(version: str) -> list[Reference]:
    """Those of a version's folder; none where it was pushed without.

    Raises:
        PipelineError: the file is damaged; with the remedy.
    """
    path = os.path.join(version, REFERENCE_PATH)
    if not tf.io.gfile.exists(path):
        return []
    try:
        with tf.io.gfile.GFile(path) as file:
            return [Reference.from_json(each) for each in json.load(file)]
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{path} is damaged, as a machine that lost its power leaves a file: {error}. Remove it, and the version "
            "is left out; or train and push a model anew: mnist-tfx run --no-cache"
        ) from error
