"""Reads request logs: a sample of the images of each version, of bounded size, with the answers that they got."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from mnist_tfx.components.transform.images import fit_images
from mnist_tfx.contract.names import ENCODED_IMAGES, EXAMPLES, IMAGE, IMAGES, PROBABILITIES
from mnist_tfx.serving.client.tensors import decode

_MAX_BYTES = 256 * 2**20  # of a version's images: of large ones fewer are looked at
_BATCH = 256
_UNUSED = "of other versions, or without images or probabilities"
_LOGGER = logging.getLogger(__name__)

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
        unreadable: how many of those that were drawn cannot be decoded.
        seen_by_hour: by the Unix time of an hour's begin, how many the logs have.
    """

    images: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    seconds: npt.NDArray[np.int64]
    other_size: npt.NDArray[np.bool_]
    seen: int
    unreadable: int
    seen_by_hour: dict[int, int]


@dataclass
class Logs:
    """What was read: a sample by version, and what could not be used, in words."""

    samples: dict[int, Sample] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    """One image as it was sent, encoded or as pixels, with its answer."""

    image: bytes | npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    seconds: int


def log_files(prefix: str) -> list[str]:
    """The files of a prefix, the oldest first."""
    return sorted(tf.io.gfile.glob(f"{prefix}-*.tfrecord.gz"))


def read_logs(prefix: str, model: str, image_shapes: Mapping[int, Shape], *, since: float, max_images: int) -> Logs:
    """Draws a sample of what versions of a model were asked since a time; memory is that of the samples.

    Args:
        prefix: of the files' paths.
        model: whose records count.
        image_shapes: by version, height, width and channels of its images; other versions are left out.
        since: Unix time.
        max_images: of each version.
    """
    rng = random.Random(0)  # the same logs give the same report
    drawn = {version: _Reservoir(max_images, shape, rng) for version, shape in image_shapes.items()}
    read = Logs()
    unused = 0
    for path in log_files(prefix):
        if tf.io.gfile.stat(path).mtime_nsec / 1e9 < since:
            continue  # its last record is older
        try:
            for record in tf.data.TFRecordDataset(path, compression_type="GZIP").as_numpy_iterator():
                log = PredictionLog.FromString(record)
                spec, seconds = log.log_metadata.model_spec, log.log_metadata.timestamp_secs
                if spec.name != model or seconds < since:
                    continue
                rows = list(_rows(log, seconds)) if spec.version.value in drawn else []
                unused += not rows
                for row in rows:
                    drawn[spec.version.value].add(row)
        except tf.errors.OpError as error:
            read.notes.append(f"{path} is damaged: {error.message.splitlines()[0]}; what came before it was read")
            _LOGGER.warning("%s", read.notes[-1])
    if unused:
        read.notes.append(f"{unused} requests were left out: {_UNUSED}")
    read.samples = {version: sample for version, each in drawn.items() if (sample := each.sample()).seen}
    return read


def _rows(log: PredictionLog, seconds: int) -> Iterator[_Row]:
    """The images of a request, of the three signatures; none where the answer tells no probabilities."""
    inputs, outputs = log.predict_log.request.inputs, log.predict_log.response.outputs
    if PROBABILITIES not in outputs:
        return
    try:
        probabilities = decode(outputs[PROBABILITIES])
        images: Iterable[bytes | npt.NDArray[np.uint8]]
        if IMAGES in inputs:
            images = decode(inputs[IMAGES])
        elif ENCODED_IMAGES in inputs:
            images = decode(inputs[ENCODED_IMAGES])
        elif EXAMPLES in inputs:
            images = [_image_of(one) for one in decode(inputs[EXAMPLES])]
        else:
            return
    except ValueError:  # a message that no server of ours answers
        return
    for image, answer in zip(images, probabilities, strict=False):
        yield _Row(image, answer, seconds)


def _image_of(example: bytes) -> bytes:
    values = tf.train.Example.FromString(example).features.feature[IMAGE].bytes_list.value
    return bytes(values[0]) if values else b""


class _Reservoir:
    """The images drawn so far. They are decoded a batch at a time: one by one takes ten times as long."""

    def __init__(self, max_images: int, shape: Shape, rng: random.Random) -> None:
        self._capacity = min(max_images, max(1, _MAX_BYTES // math.prod(shape)))
        self._shape, self._rng = shape, rng
        self._fit = tf.function(
            lambda encoded: (fit_images(encoded, shape), tf.map_fn(_size, encoded, fn_output_signature=tf.int32)),
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,
        )
        self._waiting: dict[int, _Row] = {}
        self._kept: dict[int, tuple[npt.NDArray[np.uint8], bool, _Row]] = {}
        self._seen = self._read = self._unreadable = 0
        self._by_hour: dict[int, int] = {}

    def add(self, row: _Row) -> None:
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
        kept = list(self._kept.values())
        return Sample(
            images=np.array([image for image, _, _ in kept], np.uint8).reshape(-1, *self._shape),
            probabilities=np.array([row.probabilities for _, _, row in kept], np.float32),
            seconds=np.array([row.seconds for _, _, row in kept], np.int64),
            other_size=np.array([other for _, other, _ in kept], np.bool_),
            seen=self._seen,
            unreadable=self._unreadable,
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
                self._unreadable += 1
                self._kept.pop(place, None)
                continue
            self._kept[place] = (image, other, _Row(b"", np.array(row.probabilities), row.seconds))

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
