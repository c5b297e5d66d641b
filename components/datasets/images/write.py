"""Writes the images of a split as TFDS stores them, one shard per work item of Beam."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_datasets as tfds

from mnist_tfx.components.datasets.fingerprint import FRAME_BYTES
from mnist_tfx.components.datasets.images.index import Decided, Index
from mnist_tfx.components.transform.images import fit_image
from mnist_tfx.contract.names import SPLITS

_PER_SHARD = 4096
IMAGE_KEY, LABEL_KEY, FILE_KEY = "image", "label", "file"


@dataclass(frozen=True)
class Shard:
    """A file to be written: images [first, first + count) of a split."""

    path: str
    split: str
    first: int
    count: int


def features(class_names: Sequence[str], image_shape: tuple[int, int, int]) -> Any:
    """The TFDS features of the dataset: the fitted image as PNG, its class, and the file it comes from."""
    return tfds.features.FeaturesDict(
        {
            IMAGE_KEY: tfds.features.Image(shape=image_shape, encoding_format="png"),
            LABEL_KEY: tfds.features.ClassLabel(names=list(class_names)),
            FILE_KEY: tfds.features.Text(),
        }
    )


def plan_shards(name: str, folder: Path, decided: Decided) -> list[Shard]:
    """Divides each split into files of at most 4096 images, named as TFDS names them."""
    shards = []
    for split in SPLITS:
        size = decided.splits.get(split, 0)
        parts = max(1, math.ceil(size / _PER_SHARD))
        for part in range(parts):
            first, stop = size * part // parts, size * (part + 1) // parts
            path = folder / f"{name}-{split}.tfrecord-{part:05d}-of-{parts:05d}"
            shards.append(Shard(str(path), split, first, stop - first))
    return shards


class WriteShard(beam.DoFn):
    """Reads, fits and writes the images of one `Shard`."""

    def __init__(self, index: str, folder: str, class_names: Sequence[str], image_shape: tuple[int, int, int]) -> None:
        """Takes the index's path, the source's folder, and what the features are made of."""
        self._index, self._folder = index, folder
        self._class_names, self._image_shape = class_names, image_shape

    def setup(self) -> None:
        """Makes the graph that fits an image, and TFDS's serializer."""
        shape = self._image_shape
        signature = [tf.TensorSpec([], tf.string)]
        self._fit = tf.function(lambda one: tf.io.encode_png(fit_image(one, shape)), signature, autograph=False)
        self._features = features(self._class_names, shape)
        self._serializer = tfds.core.example_serializer.ExampleSerializer(self._features.get_serialized_info())

    def process(self, shard: Shard) -> Iterator[int]:
        """Yields the number of images written."""
        rows = Index(Path(self._index)).split_of_files(shard.split, shard.first, shard.count)
        with tf.io.TFRecordWriter(shard.path) as writer:
            for file, class_name in rows:
                image = self._fit(tf.constant(Path(self._folder, file).read_bytes())).numpy()
                example = {IMAGE_KEY: image, LABEL_KEY: class_name, FILE_KEY: file}
                writer.write(self._serializer.serialize_example(self._features.encode_example(example)))
        yield len(rows)


def write_metadata(
    name: str, folder: Path, class_names: Sequence[str], image_shape: tuple[int, int, int], shards: Sequence[Shard]
) -> None:
    """What TFDS needs beside the shards to read them as any of its datasets."""
    template = tfds.core.ShardedFileTemplate(data_dir=folder, dataset_name=name, filetype_suffix="tfrecord")
    infos = []
    for split in SPLITS:
        own = [shard for shard in shards if shard.split == split]
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[shard.count for shard in own],
                num_bytes=sum(Path(shard.path).stat().st_size - FRAME_BYTES * shard.count for shard in own),
                filename_template=template.replace(split=split),
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=features(class_names, image_shape),
        split_infos=infos,
        version=folder.name,
        filename_template=template,
        check_data=False,
        supervised_keys=(IMAGE_KEY, LABEL_KEY),
    )
