"""Decodes every image of the Examples: TFDV looks at the first bytes only, and not at the size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import tensorflow as tf

from mnist_tfx.components.data_gate.findings import Finding
from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.contract.names import IMAGE


@dataclass(frozen=True)
class ImageFile:
    """One TFRecord file of a split."""

    split: str
    path: str


class CheckImages(beam.DoFn):
    """Decodes the images of one file; yields what is wrong with any of them, by record numbers from 0."""

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        self._expected = np.array(image_shape)

    def process(self, file: ImageFile) -> Iterator[Finding]:
        """Reads with tf.data, which decodes in C++ on all cores; images that are absent are the schema's matter."""
        images = tf.data.TFRecordDataset(file.path, compression_type="GZIP").batch(512).map(_parse)
        # Whole batches at a time: a third of the time of one by one. Which images are bad is asked only if any is.
        shapes = images.map(_shapes, num_parallel_calls=cpu_count())
        try:
            good = all((batch == self._expected).all() for batch in shapes.as_numpy_iterator())
        except tf.errors.InvalidArgumentError:
            good = False
        if not good:
            yield from self._find(file, images)

    def _find(self, file: ImageFile, images: tf.data.Dataset) -> Iterator[Finding]:
        """Looks at each image by itself."""
        lengths = np.concatenate([np.empty(0, np.int32), *images.map(tf.strings.length).as_numpy_iterator()])
        present = images.unbatch().enumerate().filter(lambda _, image: tf.strings.length(image) > 0)
        numbered = present.map(lambda number, image: (number, _shape(image)), num_parallel_calls=tf.data.AUTOTUNE)
        rows = list(numbered.ignore_errors().batch(4096).as_numpy_iterator())
        numbers = np.concatenate([np.empty(0, np.int64), *(row[0] for row in rows)])
        shapes = np.concatenate([np.empty((0, 3), np.int32), *(row[1] for row in rows)])
        undecodable = np.setdiff1d(np.flatnonzero(lengths), numbers)
        wrong = np.flatnonzero((shapes != self._expected).any(axis=1))
        these = f"of {lengths.size} images in {os.path.basename(file.path)}"
        if undecodable.size:
            yield Finding(
                file.split,
                IMAGE,
                f"{undecodable.size} {these} cannot be decoded (the first is record {undecodable[0]})",
                "replace or remove these images in the source.",
            )
        if wrong.size:
            expected, found = (" x ".join(map(str, shape)) for shape in (self._expected, shapes[wrong[0]]))
            yield Finding(
                file.split,
                IMAGE,
                f"{wrong.size} {these} are not {expected} (record {numbers[wrong[0]]} is {found})",
                "correct the source, or data.image_shape in the recipe; data.resize = [H, W] fits images of any size.",
            )


# AutoGraph has nothing to convert in these, and takes longer to find out than a shard takes to decode.
@tf.autograph.experimental.do_not_convert
def _parse(serialized: tf.Tensor) -> tf.Tensor:
    return tf.io.parse_example(serialized, {IMAGE: tf.io.FixedLenFeature([], tf.string, default_value="")})[IMAGE]


@tf.autograph.experimental.do_not_convert
def _shape(image: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.shape(tf.io.decode_image(image, expand_animations=False)), [3])


@tf.autograph.experimental.do_not_convert
def _shapes(images: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(_shape, images, fn_output_signature=tf.TensorSpec([3], tf.int32))
