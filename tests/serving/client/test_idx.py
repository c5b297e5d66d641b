"""IDX files, whole, gzipped and damaged."""

from __future__ import annotations

import gzip
import io
import struct
from typing import Any

import numpy as np
import pytest

from mnist_tfx.serving.client import InvalidInput, idx


def idx_file(images: Any) -> bytes:
    return struct.pack(">4I", 0x803, *images.shape) + images.tobytes()


IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_images_come_in_parts(count: int, gzipped: bool) -> None:
    content = idx_file(IMAGES[:count])
    file = io.BytesIO(gzip.compress(content) if gzipped else content)
    parts = list(idx.read_images(file, "images", gzipped=gzipped, rows=2))
    assert [len(part) for part in parts] == [2] * (count // 2) + [1] * (count % 2)
    np.testing.assert_array_equal(np.concatenate([IMAGES[:0], *parts]), IMAGES[:count])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (idx_file(IMAGES)[:-1], "announces 5 images"),
        (idx_file(IMAGES)[:10], "no IDX file"),
        (b"", "begins with nothing"),
        (struct.pack(">2I", 0x801, 3) + bytes(12), "of labels, not of images"),
        (struct.pack(">4I", 0x803, 1, 1 << 31, 1 << 31), "2147483648 x 2147483648"),
        (struct.pack(">4I", 0x803, 1 << 31, 28, 28), "cut off"),
    ],
)
def test_damaged_files(content: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=f"^t10k .*{words}"):
        list(idx.read_images(io.BytesIO(content), "t10k", gzipped=False, rows=100))


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:20] + b"????" + b[24:]], ids=["cut", "changed"])
def test_damaged_gzip(damage: Any) -> None:
    content = damage(gzip.compress(idx_file(np.random.default_rng(1).integers(0, 256, (9, 9, 9)).astype(np.uint8))))
    with pytest.raises(InvalidInput, match=r"damaged|cut off"):
        list(idx.read_images(io.BytesIO(content), "t10k.gz", gzipped=True, rows=100))


def test_no_header_makes_it_take_much_memory() -> None:
    """A reader of files takes the memory that it is asked for before it has the bytes."""
    asked: list[int] = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size or 0)
            return super().read(size)

    header = struct.pack(">4I", 0x803, 10_000, 1 << 14, 1 << 14)
    with pytest.raises(InvalidInput, match="is cut off: it announces 10000 images"):
        list(idx.read_images(Watched(header + b"pixels"), "t10k", gzipped=False, rows=100))
    assert max(asked) <= 1 << 28
