"""What a version's requests are compared with: its own answers to split test, and what the images there look like."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tfx.components.monitoring.distributions import CONFIDENCE, MEASURES, Histogram, Layout, measure
from mnist_tfx.components.transform.preprocessing import decode_images
from mnist_tfx.contract.names import EXAMPLES, IMAGE, PROBABILITIES, REFERENCE_PATH, SERVING_DEFAULT

MAX_IMAGES = 10_000  # the first of split test: memory stays flat, and what more would tell is below the bounds
_BATCH = 500
_CONFIDENCE_BINS = 100


@dataclass(frozen=True)
class Reference:
    """Of one pushed version.

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
        hundredths = np.minimum((values[CONFIDENCE] * _CONFIDENCE_BINS).astype(int), _CONFIDENCE_BINS - 1)
        height, width, channels = images.shape[1:]
        return cls(
            images=len(images),
            image_shape=(height, width, channels),
            class_names=tuple(class_names),
            classes=np.bincount(probabilities.argmax(axis=1), minlength=len(class_names)),
            confidence=np.bincount(hundredths, minlength=_CONFIDENCE_BINS),
            histograms={name: Histogram.of(values[name], name) for name in MEASURES},
            layout=layout,
        )

    def less_confident(self, confidence: float) -> int:
        """How many answers had a lower confidence, in whole hundredths."""
        return int(self.confidence[: round(confidence * _CONFIDENCE_BINS)].sum())

    def to_json(self) -> str:
        """A few kilobytes."""
        content = {
            "images": self.images,
            "image_shape": self.image_shape,
            "class_names": self.class_names,
            "classes": self.classes.tolist(),
            "confidence": self.confidence.tolist(),
            "histograms": {
                name: {"edges": each.edges.tolist(), "counts": each.counts.tolist()}
                for name, each in self.histograms.items()
            },
            "layout": {"mean": self.layout.mean.tolist(), "deviation": self.layout.deviation.tolist()},
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> Reference:
        """Raises ValueError, KeyError or TypeError for what is none."""
        content = json.loads(text)
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


def make_reference(model: str, examples: Sequence[str], class_names: Sequence[str]) -> Reference:
    """Asks an exported model for the first examples of split test, in signature `serving_default`, as TFMA does.

    Args:
        model: the SavedModel.
        examples: gzipped TFRecord files of split test.
        class_names: by class number.
    """
    loaded = tf.saved_model.load(model)  # not only its signature: the weights live as long as it
    answer = loaded.signatures[SERVING_DEFAULT]
    image_shape = tuple(loaded.signatures["images"].structured_input_signature[1]["images"].shape[1:])

    @tf.autograph.experimental.do_not_convert
    def answered(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded = tf.io.parse_example(batch, {IMAGE: tf.io.FixedLenFeature([], tf.string)})[IMAGE]
        return decode_images(encoded, image_shape), answer(**{EXAMPLES: batch})[PROBABILITIES]

    records = tf.data.TFRecordDataset(examples, compression_type="GZIP").take(MAX_IMAGES).batch(_BATCH)
    images, probabilities = zip(*records.map(answered).as_numpy_iterator(), strict=True)
    return Reference.of(np.concatenate(images), np.concatenate(probabilities), class_names)


def read_reference(version: str) -> Reference | None:
    """That of a version's folder; None where it was pushed without one."""
    path = os.path.join(version, REFERENCE_PATH)
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path) as file:
        return Reference.from_json(file.read())
