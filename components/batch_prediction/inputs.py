"""What is to be predicted: a folder of images, TFRecord files or a TFDS split, divided into units of work, and read."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from mnist_tfx.components.datasets.images.inspect import MAX_BYTES
from mnist_tfx.components.datasets.images.listing import is_listed
from mnist_tfx.components.datasets.prepared import find_prepared
from mnist_tfx.components.datasets.sources import data_dirs
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.contract.names import ENCODED_IMAGES, SERVING_DEFAULT

TFDS = "tfds:"
MANIFEST = "_manifest.json"  # in a folder of predictions
_PART_BYTES = 64 * 2**20  # of encoded images that are held at once
_READ_BATCH = 512
_GZIP = b"\x1f\x8b\x08"  # with the method (RFC 1952): by two bytes alone, a record of 35,615 bytes begins so, too


@dataclass(frozen=True)
class Unit:
    """What one worker reads at a time: image files of a folder, a TFRecord file, or a piece of a TFDS split."""

    number: int
    source: str  # the folder; the file; the folder of the prepared dataset
    name: str = ""  # before the number in the keys of examples
    files: tuple[str, ...] = ()  # from the folder
    split: str = ""
    image_key: str = ""
    first: int = 0
    stop: int = 0

    @property
    def is_one_part(self) -> bool:
        """Whether all of it goes into one file, which need not be looked into to be known as done."""
        return bool(self.files or self.split)


@dataclass(frozen=True)
class Inputs:
    """All units, the model's signature that takes their content, and a SHA-256 (hex) of what they are."""

    signature: str
    units: tuple[Unit, ...]
    digest: str


@dataclass
class Chunk:
    """Images that go into one file; those that could not be read have a reason instead."""

    path: str
    keys: list[str]
    contents: list[bytes]
    unreadable: list[tuple[str, str]]


def find_inputs(source: str, data_dir: str, rows: int) -> Inputs:
    """Lists and divides what `source` names.

    Args:
        source: a folder of image files, with folders in it at will, of which those with predictions are passed over; a
            TFRecord file of tf.Examples (also gzipped), or a pattern of such; or `tfds:NAME:SPLIT`, where SPLIT may be
            a slice. Local, or in a bucket.
        data_dir: the home's TFDS data_dir.
        rows: the most images of a part.

    Raises:
        UsageError: there is nothing of the kind.
        NotPrepared: the TFDS dataset lies neither there nor in `TFDS_DATA_DIR`.
    """
    if source.startswith(TFDS):
        return _of_tfds(source, data_dir, rows)
    if tf.io.gfile.isdir(source):
        return _of_folder(source, rows)
    found = [source] if tf.io.gfile.exists(source) else tf.io.gfile.glob(source)  # its name may have a pattern's signs
    files = sorted(path for path in found if not tf.io.gfile.isdir(path))
    if not files:
        raise UsageError(
            f"there is no {source}: name a folder of images, TFRecord files (or a pattern in quotes), "
            f"or {TFDS}NAME:SPLIT."
        )
    shared = os.path.commonpath([os.path.dirname(path) for path in files])  # splits have files of the same names
    units = [Unit(number, path, os.path.relpath(path, shared)) for number, path in enumerate(files)]
    return Inputs(SERVING_DEFAULT, tuple(units), _digest([(path, *_stat(path)) for path in files]))


def _of_folder(folder: str, rows: int) -> Inputs:
    listed: list[tuple[str, int, int]] = []
    try:
        for parent, folders, names in tf.io.gfile.walk(folder):
            folders[:] = sorted(name for name in folders if is_listed(name) and not _is_output(parent, name))
            paths = (os.path.join(parent, name) for name in sorted(filter(is_listed, names)))
            listed += [(os.path.relpath(path, folder), *_stat(path)) for path in paths]
    except UnicodeDecodeError as error:
        raise UsageError(f"{folder} holds a name that is not UTF-8: {error.object!r}. Rename it.") from error
    if not listed:
        raise UsageError(f"the folder {folder} holds no files.")
    groups: list[list[str]] = []
    held = 0
    for file, size, _ in listed:
        if not groups or len(groups[-1]) == rows or held + size > _PART_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(file)
        held += size
    units = [Unit(number, folder, files=tuple(group)) for number, group in enumerate(groups)]
    return Inputs(ENCODED_IMAGES, tuple(units), _digest(listed))


def _is_output(parent: str, name: str) -> bool:
    """Whether predictions go there: `--batch . --out here` must be the same inputs when it is called again."""
    return bool(tf.io.gfile.exists(os.path.join(parent, name, MANIFEST)))


def _of_tfds(source: str, data_dir: str, rows: int) -> Inputs:
    name, _, split = source.removeprefix(TFDS).partition(":")
    dataset = find_prepared(name, None, data_dirs(Path(data_dir)))
    folder = str(dataset.folder)
    splits = tfds.builder_from_directory(folder).info.splits
    ranges = []
    for part, start, stop in dataset.slices(split, source):
        info = splits[part]
        step = max(1, min(rows, _PART_BYTES * info.num_examples // max(info.num_bytes, 1)))
        ranges += [(part, first, min(first + step, stop)) for first in range(start, stop, step)]
    if not ranges:
        raise UsageError(f"{source} holds no images.")
    units = [
        Unit(number, folder, f"{name}:{part}", (), part, dataset.image_key, first, stop)
        for number, (part, first, stop) in enumerate(ranges)
    ]
    return Inputs(ENCODED_IMAGES, tuple(units), _digest([dataset.fingerprint, split]))


def read(unit: Unit, out: str, rows: int) -> Iterator[Chunk]:
    """The images of a unit that have no part in the folder `out` yet, at most `rows` (and about 64 MiB) at a time."""
    if unit.is_one_part and tf.io.gfile.exists(part_path(out, unit, 0)):
        return
    number, chunk, held = 0, Chunk(part_path(out, unit, 0), [], [], []), 0
    for key, content, problem in _records(unit):
        full = len(chunk.keys) + len(chunk.unreadable) == rows or held + len(content) > _PART_BYTES
        if full and not unit.is_one_part and (chunk.keys or chunk.unreadable):
            if not tf.io.gfile.exists(chunk.path):
                yield chunk
            number, held = number + 1, 0
            chunk = Chunk(part_path(out, unit, number), [], [], [])
        held += len(content)
        if problem:
            chunk.unreadable.append((key, problem))
        else:
            chunk.keys.append(key)
            chunk.contents.append(content)
    if not tf.io.gfile.exists(chunk.path):
        yield chunk


def part_path(out: str, unit: Unit, number: int) -> str:
    """Where the predictions of a unit's chunk of this number go."""
    return os.path.join(out, f"part-{unit.number:05d}-{number:05d}.parquet")


def _records(unit: Unit) -> Iterator[tuple[str, bytes, str]]:
    """Key and content of each image or tf.Example, or why there is none."""
    if unit.files:
        for file in unit.files:
            yield file, *_content(os.path.join(unit.source, file))
    elif unit.split:
        for number, image in enumerate(_tfds_images(unit), unit.first):
            yield f"{unit.name}:{number}", image, ""
    else:
        with tf.io.gfile.GFile(unit.source, "rb") as file:
            kind = "GZIP" if file.read(len(_GZIP)) == _GZIP else ""
        number = -1
        try:
            # tf.data's own iterator takes long for each record, and by the batch it loses those before a damaged one.
            records = tf.compat.v1.io.tf_record_iterator(unit.source, tf.io.TFRecordOptions(kind))
            for number, record in enumerate(records):
                yield f"{unit.name}:{number}", record, ""
        except tf.errors.OpError:  # what follows a damaged record cannot be found
            yield f"{unit.name}:{number + 1}", b"", "the TFRecord file is damaged from here on"


_builder = functools.lru_cache(maxsize=1)(tfds.builder_from_directory)


def _tfds_images(unit: Unit) -> Iterator[bytes]:
    """The encoded images of a unit of a TFDS split, straight from its files.

    `as_dataset` parses one example at a time, which takes as long as half of the model's work on MNIST.
    """
    feature = {unit.image_key: tf.io.FixedLenFeature([], tf.string)}
    split = _builder(unit.source).info.splits[f"{unit.split}[{unit.first}:{unit.stop}]"]
    for piece in split.file_instructions:
        records = tf.data.TFRecordDataset(piece.filename).skip(piece.skip).take(piece.take)
        parsed = records.batch(_READ_BATCH).map(lambda batch: tf.io.parse_example(batch, feature)[unit.image_key])
        for images in parsed.as_numpy_iterator():
            yield from images


def _content(path: str) -> tuple[bytes, str]:
    try:
        if tf.io.gfile.stat(path).length > MAX_BYTES:
            return b"", f"is larger than {MAX_BYTES // 2**20} MiB"
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read(), ""
    except (tf.errors.OpError, OSError) as error:
        return b"", f"cannot be read: {getattr(error, 'message', error)}"


def _stat(path: str) -> tuple[int, int]:
    """Size, and time of the last change; zeros where they cannot be had."""
    try:
        found = tf.io.gfile.stat(path)
    except tf.errors.OpError:
        return 0, 0
    return found.length, found.mtime_nsec


def _digest(listed: Sequence[object]) -> str:
    return hashlib.sha256(repr(listed).encode("utf-8", "surrogateescape")).hexdigest()
