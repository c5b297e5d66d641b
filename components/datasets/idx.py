"""MNIST's file format, IDX: finding the four files of a dataset, checking them, and unpacking them.

The format is described at the end of MNIST's home page: a big-endian magic number (0x00000801 for labels, 0x00000803
for images, of unsigned bytes), the size of each dimension as uint32, then the bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mnist_tfx.components.datasets.published import IDX_FILES, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from mnist_tfx.contract.errors import DataRejected, UsageError

_CHUNK = 1 << 20
_IMAGE_SIDE = 28  # TFDS's MNIST builder reads no other size


@dataclass(frozen=True)
class IdxSplit:
    """The uncompressed files of one split."""

    images: Path
    labels: Path
    count: int


@dataclass(frozen=True)
class IdxDataset:
    """The uncompressed, checked files of a dataset."""

    train: IdxSplit
    test: IdxSplit


def unpack_verified(source: Path, into: Path, *, sums: Mapping[str, str] | None, classes: int) -> IdxDataset:
    """Copies the four IDX files of `source`, raw or `.gz`, into the existing folder `into`, and checks the copies.

    Args:
        source: the folder that holds the files.
        into: where the uncompressed copies go.
        sums: the published SHA-256 of each uncompressed file, where there are any.
        classes: how many classes the labels may name.

    Raises:
        UsageError: a file is not in `source`.
        DataRejected: a file has another sum than published, or is not what an IDX file of MNIST's shape must be.
    """
    found = {name: _find(source, name) for name in IDX_FILES}
    for name, path in found.items():
        digest = _unpack(path, into / name)
        if sums is not None and digest != sums[name]:
            raise DataRejected(
                f"{path} is not the published file: the SHA-256 of its uncompressed content is {digest}, "
                f"published is {sums[name]}. Nothing was prepared from it. Get the file again."
            )
    return IdxDataset(
        train=_read_split(found[TRAIN_IMAGES], found[TRAIN_LABELS], into, classes),
        test=_read_split(found[TEST_IMAGES], found[TEST_LABELS], into, classes),
    )


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise UsageError(f"{folder} holds neither {name} nor {name}.gz. It must hold all of: {', '.join(IDX_FILES)}.")


def _unpack(path: Path, target: Path) -> str:
    """Copies a raw or gzip file uncompressed; returns the SHA-256 of what was written."""
    digest = hashlib.sha256()
    opener = gzip.GzipFile if path.suffix == ".gz" else io.FileIO
    with opener(path, "rb") as reader, open(target, "wb") as writer:
        try:
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
                writer.write(chunk)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataRejected(f"{path} is cut off or damaged: {error}. Get the file again.") from error
    return digest.hexdigest()


def _read_split(images: Path, labels: Path, folder: Path, classes: int) -> IdxSplit:
    """Checks the unpacked copies, in `folder`, of `images` and `labels`; errors name the originals."""
    unpacked_images, unpacked_labels = (folder / path.name.removesuffix(".gz") for path in (images, labels))
    count, *sides = _dimensions(images, unpacked_images, 3)
    if sides != [_IMAGE_SIDE, _IMAGE_SIDE]:
        raise DataRejected(
            f"{images} holds images of {sides[0]} x {sides[1]} pixels; expected {_IMAGE_SIDE} x {_IMAGE_SIDE}."
        )
    (label_count,) = _dimensions(labels, unpacked_labels, 1)
    if count != label_count:
        raise DataRejected(f"{images} holds {count} images, but {labels} holds {label_count} labels.")
    if count == 0:
        raise DataRejected(f"{images} holds no images.")
    largest = max(unpacked_labels.read_bytes()[8:])
    if largest >= classes:
        raise DataRejected(f"{labels} holds label {largest}, but the dataset has the classes 0 to {classes - 1}.")
    return IdxSplit(unpacked_images, unpacked_labels, count)


def _dimensions(original: Path, path: Path, rank: int) -> tuple[int, ...]:
    """The dimensions that an IDX file of unsigned bytes declares, once its length agrees with them."""
    size = path.stat().st_size
    with open(path, "rb") as handle:
        header = handle.read(4 * (1 + rank))
    if len(header) < 4 * (1 + rank) or struct.unpack(">I", header[:4])[0] != 0x0800 + rank:
        raise DataRejected(
            f"{original} is no IDX file of unsigned bytes in {rank} dimension(s): it begins with {header[:4].hex()!r}."
        )
    dimensions = struct.unpack(f">{rank}I", header[4:])
    expected = len(header) + math.prod(dimensions)
    if size != expected:
        raise DataRejected(f"{original} should be {expected} bytes long by its header, but is {size} (uncompressed).")
    return dimensions
