"""A sample of the images that each version was asked, of bounded size, with the answers that they got."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tfx.components.monitoring.records import LoggedImage, LogReader
from mnist_tfx.components.monitoring.reference import LEAST_IMAGES, MAX_BYTES
from mnist_tfx.components.transform.images import fit_images

_BATCH = 256

Shape = tuple[int, int, int]


@dataclass
class Sample:
    """Images of one version, each with the same chance (Vitter's algorithm R, 1985), whatever signature brought them.

    Attributes:
        images: uint8 [n, height, width, channels], as the model saw them.
        probabilities: float32 [n, classes].
        seconds: when each was answered, Unix time, int64 [n].
        other_size: whether each came in another size than the model's, bool [n].
        seen: how many images the logs have.
        unreadable: how many more were drawn, which cannot be decoded.
        seen_by_hour: by the Unix time of an hour's begin, how many the logs have.
    """

    images: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    seconds: npt.NDArray[np.int64]
    other_size: npt.NDArray[np.bool_]
    seen: int
    unreadable: int
    seen_by_hour: dict[int, int]


@dataclass(frozen=True)
class Logs:
    """What was read: a sample by version, and what could not be used, in words."""

    samples: dict[int, Sample]
    notes: list[str]


def read_logs(
    prefix: str,
    model: str,
    image_shapes: Mapping[int, Shape],
    *,
    since: float,
    max_images: int,
    min_images: int = 0,
) -> Logs:
    """Draws a sample of what versions of a model were asked since a time; memory is that of the samples.

    Args:
        prefix: of the files' paths.
        model: whose records count.
        image_shapes: by version, height, width and channels of its images; other versions are left out.
        since: Unix time.
        max_images: of each version; of large images fewer, as many as `MAX_BYTES` hold decoded.
        min_images: how many of these in any case, and `LEAST_IMAGES`.
    """
    rng = random.Random(0)  # the same logs give the same report
    least = max(LEAST_IMAGES, min_images)
    drawn = {
        version: _Reservoir(min(max_images, max(least, MAX_BYTES // math.prod(shape))), shape, rng)
        for version, shape in image_shapes.items()
    }
    reader = LogReader(prefix, model, since, drawn)
    for logged in reader:
        drawn[logged.version].add(logged)
    unused = f"{reader.unused} requests were left out: of other versions, or without images or probabilities"
    notes = [*reader.notes, *([unused] if reader.unused else [])]
    return Logs({version: sample for version, each in drawn.items() if (sample := each.sample()).seen}, notes)


class _Reservoir:
    """The images drawn so far. They are decoded a batch at a time: one by one takes ten times as long."""

    def __init__(self, capacity: int, shape: Shape, rng: random.Random) -> None:
        self._capacity, self._shape, self._rng = capacity, shape, rng
        self._fit = tf.function(
            lambda encoded: (fit_images(encoded, shape), tf.map_fn(_size, encoded, fn_output_signature=tf.int32)),
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,
        )
        self._waiting: dict[int, LoggedImage] = {}
        # None: drawn, and cannot be decoded. It keeps its place until another is drawn in its stead, as all do.
        self._kept: dict[int, tuple[npt.NDArray[np.uint8], bool, LoggedImage] | None] = {}
        self._seen = 0
        self._by_hour: dict[int, int] = {}

    def add(self, row: LoggedImage) -> None:
        """Takes an image in or not, by chance."""
        place = self._seen if self._seen < self._capacity else self._rng.randrange(self._seen + 1)
        self._seen += 1
        hour = row.seconds // 3600 * 3600
        self._by_hour[hour] = self._by_hour.get(hour, 0) + 1
        if place < self._capacity:
            self._waiting[place] = row
            if len(self._waiting) == _BATCH:
                self._decode()

    def sample(self) -> Sample:
        """What was drawn, in no order."""
        self._decode()
        kept = [each for each in self._kept.values() if each is not None]
        return Sample(
            images=np.array([image for image, _, _ in kept], np.uint8).reshape(-1, *self._shape),
            probabilities=np.array([row.probabilities for _, _, row in kept], np.float32),
            seconds=np.array([row.seconds for _, _, row in kept], np.int64),
            other_size=np.array([other for _, other, _ in kept], np.bool_),
            seen=self._seen,
            unreadable=len(self._kept) - len(kept),
            seen_by_hour=self._by_hour,
        )

    def _decode(self) -> None:
        waiting, self._waiting = self._waiting, {}
        encoded = {place: row for place, row in waiting.items() if isinstance(row.image, bytes)}
        fitted = dict(zip(encoded, self._fitted([row.image for row in encoded.values()]), strict=True))
        for place, row in waiting.items():
            if not isinstance(row.image, bytes):
                image, other = np.array(row.image, np.uint8), False  # a copy: the message's memory is set free
            elif (found := fitted[place]) is not None:
                image, other = found
            else:
                self._kept[place] = None
                continue
            self._kept[place] = (image, other, replace(row, image=b"", probabilities=np.array(row.probabilities)))

    def _fitted(self, encoded: list[bytes | npt.NDArray[np.uint8]]) -> list[tuple[npt.NDArray[np.uint8], bool] | None]:
        """As signature `encoded_images` fits them, and whether they had another size; None for what is no image."""
        if not encoded:
            return []
        try:
            images, sizes = self._fit(tf.constant(encoded))
        except tf.errors.InvalidArgumentError:
            if len(encoded) == 1:
                return [None]
            return [each for one in encoded for each in self._fitted([one])]
        other = (sizes.numpy() != self._shape[:2]).any(axis=1)
        return list(zip(images.numpy(), other, strict=True))


def _size(encoded: tf.Tensor) -> tf.Tensor:
    """Height and width, int32 [2]."""
    return tf.shape(tf.io.decode_image(encoded, expand_animations=False))[:2]
