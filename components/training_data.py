"""Reads a split of Examples as a tf.data pipeline for training: decoded once, kept as uint8, normalized per batch."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from components.features import IMAGE, LABEL
from components.preprocessing import Normalization, decode_images

_DECODE_BATCH = 256
_MEMORY_CACHE_BYTES = 256 * 2**20  # beyond this, decoded images lie on the disk: memory does not grow with the data
_DISK_SHARE = 0.5  # of the free disk that the cache may take
_SHUFFLE_EXAMPLES = 100_000
_PARALLEL = os.cpu_count() or 1
_PREFETCH_BATCHES = 8
# Each iterator that is made takes the next order, and Keras 3.15's `fit` makes two per epoch. That a resumed training
# sees the right orders is tested in tests/components/test_trainer.py.
_ITERATORS_PER_EPOCH = 2
_FEATURES = {IMAGE: tf.io.FixedLenFeature([], tf.string), LABEL: tf.io.FixedLenFeature([], tf.int64)}


def count_examples(patterns: Sequence[str]) -> int:
    """The number of records in the gzipped TFRecord files that match."""
    return int(_records(patterns).batch(4096).reduce(np.int64(0), lambda n, batch: n + tf.size(batch, tf.int64)))


def decoded_examples(
    patterns: Sequence[str], image_shape: tuple[int, int, int], count: int, cache_dir: str
) -> tf.data.Dataset:
    """Decoded examples (uint8 [height, width, channels], int64 label), in file order; the first epoch decodes them.

    Later ones take them from memory, or, if they are too many, from a file in `cache_dir`, where there is room for it.
    """

    @tf.autograph.experimental.do_not_convert
    def decode(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_example(serialized, _FEATURES)
        return decode_images(parsed[IMAGE], image_shape), parsed[LABEL]

    batches = _records(patterns).batch(_DECODE_BATCH).map(decode, num_parallel_calls=_PARALLEL)
    size = count * math.prod(image_shape)
    in_memory = size <= _MEMORY_CACHE_BYTES
    if not in_memory and size < _DISK_SHARE * shutil.disk_usage(cache_dir).free:
        batches = batches.cache(os.path.join(tempfile.mkdtemp(dir=cache_dir), "decoded"))
    examples = batches.unbatch().apply(tf.data.experimental.assert_cardinality(count))
    return examples.cache() if in_memory else examples


def training_batches(
    examples: tf.data.Dataset,
    normalization: Normalization,
    *,
    num_classes: int,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
) -> tf.data.Dataset:
    """Shuffled batches of one epoch, for Keras' `fit` to iterate over in each epoch, beginning with `first_epoch`.

    The order within an epoch depends on the seed and the epoch's number alone: a training that goes on after a kill
    sees what the uninterrupted one saw.

    Returns:
        A dataset of (float32 [N, height, width, channels], one-hot float32 [N, num_classes]).
    """
    shuffled = examples.shuffle(_SHUFFLE_EXAMPLES, seed=seed, reshuffle_each_iteration=True).batch(batch_size)
    for _ in range(first_epoch * _ITERATORS_PER_EPOCH):
        next(iter(shuffled))
    return _normalized(shuffled, normalization, num_classes)


def evaluation_batches(
    examples: tf.data.Dataset, normalization: Normalization, *, num_classes: int, batch_size: int
) -> tf.data.Dataset:
    """Batches in file order, of the same form as `training_batches`."""
    return _normalized(examples.batch(batch_size), normalization, num_classes)


def _normalized(batches: tf.data.Dataset, normalization: Normalization, num_classes: int) -> tf.data.Dataset:
    data = batches.map(
        lambda images, labels: (normalization(images), tf.one_hot(labels, num_classes)), num_parallel_calls=_PARALLEL
    )
    options = tf.data.Options()
    # With tf.data's autotuning, now and then an epoch begins with a stall as long as the epoch itself
    # (`benchmarks/training_input.py`); a few fixed threads are enough for this little work.
    options.autotune.enabled = False
    return data.prefetch(_PREFETCH_BATCHES).with_options(options)


def _records(patterns: Sequence[str]) -> tf.data.Dataset:
    files = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    return tf.data.TFRecordDataset(files, compression_type="GZIP")
