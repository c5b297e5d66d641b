"""Reads MNIST's file format of images, IDX, raw or gzipped, in bounded memory.

The format is at the end of MNIST's home page: the magic number 0x00000803 for images of unsigned bytes, then their
count, height and width as big-endian uint32, then the pixels.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from mnist_tfx.serving.client.errors import InvalidInput

GZIP, IMAGES, LABELS = b"\x1f\x8b", b"\x00\x00\x08\x03", b"\x00\x00\x08\x01"
_MAX_SIDE = 1 << 14  # beyond it, the header is of something else
_MAX_BYTES = 1 << 28  # read at once: a reader takes the memory before it has the bytes


def read_images(file: BinaryIO, name: str, *, gzipped: bool, rows: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The images of an IDX file, uint8 [up to `rows`, height, width] at a time.

    Raises:
        InvalidInput: the file, called `name`, holds something else, or is damaged.
    """
    source = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if gzipped else file
    header = _read(source, 16, name)
    if header.startswith(LABELS):
        raise InvalidInput(f"{name} is an IDX file of labels, not of images.")
    if len(header) < 16 or not header.startswith(IMAGES):
        raise InvalidInput(f"{name} is no IDX file of images: it begins with {header[:4].hex(' ') or 'nothing'}.")
    count, height, width = struct.unpack(">3I", header[4:])
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise InvalidInput(f"{name} is damaged: it announces images of {height} x {width} pixels.")
    rows = min(rows, max(1, _MAX_BYTES // (height * width)))
    for start in range(0, count, rows):
        wanted = min(rows, count - start)
        content = _read(source, wanted * height * width, name)
        if len(content) != wanted * height * width:
            raise InvalidInput(f"{name} is cut off: it announces {count} images and ends within the next {wanted}.")
        yield np.frombuffer(content, np.uint8).reshape(wanted, height, width)


def _read(source: BinaryIO, size: int, name: str) -> bytes:
    try:
        return source.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInput(f"{name} is cut off or damaged: {error}.") from error
