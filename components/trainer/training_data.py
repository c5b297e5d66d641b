"""Reads a split of Examples for training: decoded once, kept as uint8, shuffled, augmented and normalized per batch."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tfx.components.settings import AugmentationSettings
from mnist_tfx.components.trainer.augmentation import augment
from mnist_tfx.components.transform.preprocessing import Normalization, decode_images
from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.contract.names import IMAGE, LABEL

_DECODE_BATCH = 256
_HASHED_BYTES = 2**20  # at once: a file of Examples may be larger than the memory
_MEMORY_BYTES = 256 * 2**20  # beyond this, decoded images lie on the disk: memory does not grow with the data
_PARALLEL = cpu_count()
_PREFETCH_BATCHES = 8
_EVALUATION_BYTES = 64 * 2**20  # of a batch's pixels, float32: as many batches as are prefetched are held at once
_FEATURES = {IMAGE: tf.io.FixedLenFeature([], tf.string), LABEL: tf.io.FixedLenFeature([], tf.int64)}


@dataclass(frozen=True)
class DecodedExamples:
    """The labels of a split, int64 [N], and a reader of its images.

    `read_images` takes indices, int64 [n], and gives uint8 [n, height, width, channels].
    """

    labels: npt.NDArray[np.int64]
    image_shape: tuple[int, int, int]
    read_images: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """In a graph: images, uint8 [n, height, width, channels], and labels, int64 [n], at indices, int64 [n]."""
        images, labels = tf.numpy_function(
            lambda at: (self.read_images(at), self.labels[at]), [indices], (tf.uint8, tf.int64), stateful=False
        )
        images.set_shape([None, *self.image_shape])
        labels.set_shape([None])
        return images, labels


def examples_digest(*splits: Sequence[str]) -> str:
    """Names Examples by their content: 64 hexadecimal digits, over the files that match each split's patterns."""
    digest = hashlib.sha256()
    for patterns in splits:
        for path in _files(patterns):
            content = hashlib.sha256()
            with tf.io.gfile.GFile(path, "rb") as file:
                while block := file.read(_HASHED_BYTES):
                    content.update(block)
            digest.update(content.digest())
        digest.update(b"end of split")
    return digest.hexdigest()


def _files(patterns: Sequence[str]) -> list[str]:
    return sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))


def decode_examples(patterns: Sequence[str], image_shape: tuple[int, int, int], cache_dir: str) -> DecodedExamples:
    """Decodes the gzipped TFRecord files that match, into memory or, if they are too many, a file in `cache_dir`.

    Raises:
        PipelineError: there is no room for that file.
    """
    records = tf.data.TFRecordDataset(_files(patterns), compression_type="GZIP")
    count = int(records.batch(4096).reduce(np.int64(0), lambda n, batch: n + tf.size(batch, tf.int64)))

    @tf.autograph.experimental.do_not_convert
    def decode(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_example(serialized, _FEATURES)
        return decode_images(parsed[IMAGE], image_shape), parsed[LABEL]

    batches = records.batch(_DECODE_BATCH).map(decode, num_parallel_calls=_PARALLEL).prefetch(2).as_numpy_iterator()
    labels = np.empty(count, np.int64)
    size = count * math.prod(image_shape)
    if size <= _MEMORY_BYTES:
        images = np.empty((count, *image_shape), np.uint8)
        for first, (some_images, some_labels) in zip(range(0, count, _DECODE_BATCH), batches, strict=True):
            images[first : first + _DECODE_BATCH], labels[first : first + _DECODE_BATCH] = some_images, some_labels
        return DecodedExamples(labels, image_shape, images.__getitem__)
    free = shutil.disk_usage(cache_dir).free
    if size > free:
        raise PipelineError(
            f"{count:,} decoded images need {size / 2**30:.1f} GiB in {cache_dir}, which has {free / 2**30:.1f} GiB "
            "free. Set TMPDIR to a folder on a larger local disk."
        )
    with tempfile.NamedTemporaryFile(dir=cache_dir, delete=False) as file:
        for first, (some_images, some_labels) in zip(range(0, count, _DECODE_BATCH), batches, strict=True):
            file.write(some_images.tobytes())
            labels[first : first + _DECODE_BATCH] = some_labels
    return DecodedExamples(labels, image_shape, _ImageFile(file.name, image_shape).read)


class _ImageFile:
    """Decoded images one after the other in a file; read one by one, so that memory holds no more than a batch."""

    def __init__(self, path: str, image_shape: tuple[int, int, int]) -> None:
        self._file = open(path, "rb")  # noqa: SIM115  closed with the last reference to it
        self._shape, self._size = image_shape, math.prod(image_shape)

    def read(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        content = b"".join(os.pread(self._file.fileno(), self._size, int(at) * self._size) for at in indices)
        return np.frombuffer(content, np.uint8).reshape(-1, *self._shape)


class TrainingInput:
    """Batches of one epoch after the other, for Keras' `fit` to iterate over once per epoch.

    Order and augmentation depend on the seed, the epoch's number and the batch's alone: a training that goes on after a
    kill sees what the uninterrupted one saw.
    """

    def __init__(
        self,
        examples: DecodedExamples,
        normalization: Normalization,
        augmentation: AugmentationSettings,
        *,
        num_classes: int,
        batch_size: int,
        seed: int,
    ) -> None:
        """Begins with epoch 0; set `epoch` before another is iterated over."""
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)  # seconds that the consumer waited, in all
        self.steps = math.ceil(len(examples) / batch_size)
        self._examples, self._normalization, self._augmentation = examples, normalization, augmentation
        self._num_classes, self._batch_size, self._seed = num_classes, batch_size, seed

    def batches(self) -> tf.data.Dataset:
        """A dataset of (float32 [N, height, width, channels], one-hot float32 [N, num_classes])."""
        ready = _with_fixed_threads(tf.data.Dataset.range(self.steps).map(self._batch, num_parallel_calls=_PARALLEL))
        # `zip` asks its inputs in turn: the first answers when the consumer asks, the second when a batch is ready.
        asked = tf.data.Dataset.range(self.steps).map(lambda step: tf.timestamp())
        return _with_fixed_threads(tf.data.Dataset.zip((asked, ready)).map(self._count_wait), prefetch=0)

    def _batch(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, count = self.epoch.read_value(), len(self._examples)
        first = step * self._batch_size
        places = tf.range(first, tf.minimum(first + self._batch_size, count))
        epoch_seed = tf.stack([tf.constant(self._seed, tf.int64), epoch])
        indices = tf.random.experimental.index_shuffle(places, epoch_seed, tf.constant(count - 1, tf.int64))
        images, labels = self._examples.read(indices)
        pixels = augment(images, self._augmentation, tf.random.fold_in(epoch_seed, step))
        return self._normalization(pixels), tf.one_hot(labels, self._num_classes)

    def _count_wait(self, asked: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies([self.waited.assign_add(tf.timestamp() - asked)]):
            return tf.identity(batch[0]), tf.identity(batch[1])


def evaluation_batches(
    examples: DecodedExamples, normalization: Normalization, *, num_classes: int, batch_size: int
) -> tf.data.Dataset:
    """Batches in file order, as they are, of the same form as `TrainingInput`'s; of large images they have fewer."""
    count = len(examples)
    batch_size = min(batch_size, max(1, _EVALUATION_BYTES // (4 * math.prod(examples.image_shape))))

    def batch(first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = examples.read(tf.range(first, tf.minimum(first + batch_size, count)))
        return normalization(images), tf.one_hot(labels, num_classes)

    return _with_fixed_threads(tf.data.Dataset.range(0, count, batch_size).map(batch, num_parallel_calls=_PARALLEL))


def _with_fixed_threads(data: tf.data.Dataset, prefetch: int = _PREFETCH_BATCHES) -> tf.data.Dataset:
    options = tf.data.Options()
    # With tf.data's autotuning, now and then an epoch begins with a stall as long as the epoch itself
    # (`benchmarks/training.py`); a few fixed threads are enough for this little work.
    options.autotune.enabled = False
    # Two more than read batches at once: the clock that counts waiting must not itself wait for a thread.
    options.threading.private_threadpool_size = _PARALLEL + 2
    return (data.prefetch(prefetch) if prefetch else data).with_options(options)
