"""A fingerprint of what a prepared dataset holds, the same wherever and whenever it was prepared."""

from __future__ import annotations

import functools
import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

_BLOCK_BYTES = 2**20
# A record of a TFRecord file: length (uint64, little-endian), CRC of the length, content, CRC of the content; from
# TensorFlow's core/lib/io/record_writer.h.
_LENGTH = struct.Struct("<Q")
_HEADER_BYTES = 12
_FOOTER_BYTES = 4
FRAME_BYTES = _HEADER_BYTES + _FOOTER_BYTES


def fingerprint(folder: Path, info: Any) -> str:
    """SHA-256, in hex, over a TFDS dataset's features, class names and records; 0.2 s for MNIST.

    dataset_info.json, which tells of the download, is left out. Each record is hashed with its features in alphabetical
    order: TFDS writes them in an order that differs from one process to the next.

    Args:
        folder: `<data_dir>/<name>/<version>`.
        info: its `tfds.core.DatasetInfo`.

    Raises:
        ValueError: a record is damaged.
    """
    folder = epath.Path(folder)
    records = {epath.Path(file) for split in info.splits.values() for file in split.filepaths}
    digest = hashlib.sha256()
    for path in sorted([folder / "features.json", *folder.glob("*.labels.txt"), *records]):
        of_file = _digest(str(path), path in records and info.file_format.value == "tfrecord", _stamp(path))
        digest.update(f"{path.name} {of_file}\n".encode())
    return digest.hexdigest()


def _stamp(path: epath.Path) -> object:
    """Says whether a file is still the one that was read; of one in a bucket that is not known."""
    try:
        found = os.stat(path)
    except OSError:
        return object()
    return found.st_ino, found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=256)  # a run asks several times, and reads the files once
def _digest(path: str, of_examples: bool, stamp: object) -> str:
    """SHA-256, in hex, over a file's content, or over its examples; `stamp` is that of the file as it is."""
    digest = hashlib.sha256()
    file = epath.Path(path)
    for content in _examples_in_order(file) if of_examples else _blocks(file):
        digest.update(content)
    return digest.hexdigest()


def _blocks(path: epath.Path) -> Iterator[bytes]:
    """The content, part by part: a file in another format than TFRecord may be larger than the memory."""
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK_BYTES):
            yield block


def _examples_in_order(path: epath.Path) -> Iterator[bytes]:
    """The serialized tf.Examples of a TFRecord file, the features of each in alphabetical order."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2  # the same message as TensorFlow's, without TensorFlow

    with path.open("rb") as handle:
        try:
            while header := handle.read(_HEADER_BYTES):
                content = handle.read(_LENGTH.unpack_from(header)[0])
                handle.read(_FOOTER_BYTES)
                yield tf_example_pb2.Example.FromString(content).SerializeToString(deterministic=True)
        except (DecodeError, struct.error, OverflowError, MemoryError) as error:
            raise ValueError(f"{path} holds a damaged record: {error}") from error
