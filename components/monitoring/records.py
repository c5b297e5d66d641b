"""Reads request logs, record by record: what versions of a model were asked, and what they answered."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from mnist_tfx.contract.names import ENCODED_IMAGES, EXAMPLES, IMAGE, IMAGES, LABELS, PROBABILITIES
from mnist_tfx.serving.client.tensors import decode

_LOGGER = logging.getLogger(__name__)
_SUFFIX = ".tfrecord.gz"


@dataclass(frozen=True)
class LoggedImage:
    """One image as it was sent, encoded or as pixels, with its answer.

    Attributes:
        image: an encoded image, or pixels, uint8 [height, width, channels].
        probabilities: float32 [classes].
        label: the name of the most probable class; empty where the caller did not ask for it.
        version: which answered.
        seconds: when, Unix time.
    """

    image: bytes | npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    label: str
    version: int
    seconds: int


def log_files(prefix: str) -> list[str]:
    """The files of a prefix, the oldest first; a pattern's signs in it may be its own, or a pattern."""
    folder, begin = os.path.split(f"{prefix}-")
    names = tf.io.gfile.listdir(folder or ".") if tf.io.gfile.isdir(folder or ".") else []
    found = [os.path.join(folder, name) for name in names if name.startswith(begin) and name.endswith(_SUFFIX)]
    return sorted(found or tf.io.gfile.glob(f"{prefix}-*{_SUFFIX}"))


@dataclass
class LogReader:
    """The log of one model, an iterator over its images.

    Attributes:
        prefix: of the files' paths.
        model: whose records count.
        since: Unix time; what was answered before is not looked at.
        versions: whose answers count; None: all.
        unused: requests of other versions, or without images or probabilities, so far.
        notes: which files are damaged, in words, so far.
    """

    prefix: str
    model: str
    since: float = 0.0
    versions: Collection[int] | None = None
    unused: int = 0
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[LoggedImage]:
        """In the order in which they were logged."""
        for path in log_files(self.prefix):
            try:
                if tf.io.gfile.stat(path).mtime_nsec / 1e9 < self.since:
                    continue  # its last record is older
                for record in tf.data.TFRecordDataset(path, compression_type="GZIP").as_numpy_iterator():
                    log = PredictionLog.FromString(record)
                    metadata = log.log_metadata
                    if metadata.model_spec.name == self.model and metadata.timestamp_secs >= self.since:
                        wanted = self.versions is None or metadata.model_spec.version.value in self.versions
                        images = _images(log) if wanted else []
                        self.unused += not images
                        yield from images
            except tf.errors.NotFoundError:
                pass  # the server has removed it meanwhile, as the oldest
            except tf.errors.OpError as error:
                self.notes.append(f"{path} is damaged: {error.message.splitlines()[0]}; what came before it was read")
                _LOGGER.warning("%s", self.notes[-1])


def _images(log: PredictionLog) -> list[LoggedImage]:
    """Those of a request, of the three signatures; none where the answer tells no probabilities."""
    inputs, outputs = log.predict_log.request.inputs, log.predict_log.response.outputs
    name = next((name for name in (IMAGES, ENCODED_IMAGES, EXAMPLES) if name in inputs), None)
    if name is None or PROBABILITIES not in outputs:
        return []
    try:
        sent, probabilities = decode(inputs[name]), decode(outputs[PROBABILITIES])
        labels = [label.decode() for label in decode(outputs[LABELS])] if LABELS in outputs else [""] * len(sent)
    except ValueError:  # a message that no server of ours answers
        return []
    images = [_image_of(one) for one in sent] if name == EXAMPLES else sent
    version, seconds = log.log_metadata.model_spec.version.value, log.log_metadata.timestamp_secs
    return [LoggedImage(*each, version, seconds) for each in zip(images, probabilities, labels, strict=False)]


def _image_of(example: bytes) -> bytes:
    values = tf.train.Example.FromString(example).features.feature[IMAGE].bytes_list.value
    return bytes(values[0]) if values else b""
