"""The checks that IDX files must pass before anything is made from them."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mnist_tfx.components.datasets.idx import unpack_verified
from mnist_tfx.components.datasets.published import IDX_FILES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from mnist_tfx.contract.errors import DataRejected, PipelineError, UsageError
from tests.fixtures.tiny_dataset import write_idx, write_idx_files


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_idx_files(folder, train=20, test=10)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def test_gzip_and_raw_files_give_the_same_bytes(source: Path, target: Path) -> None:
    sums = {name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in IDX_FILES}
    raw = (source / TRAIN_IMAGES).read_bytes()
    (source / f"{TRAIN_IMAGES}.gz").write_bytes(gzip.compress(raw))
    (source / TRAIN_IMAGES).unlink()

    dataset = unpack_verified(source, target, sums=sums, classes=10)

    assert (dataset.train.count, dataset.test.count) == (20, 10)
    assert dataset.train.images.read_bytes() == raw


def test_wrong_sum_names_the_file_and_both_sums(source: Path, target: Path) -> None:
    sums = {name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in IDX_FILES}
    wrong = {**sums, TEST_LABELS: "0" * 64}
    with pytest.raises(DataRejected) as caught:
        unpack_verified(source, target, sums=wrong, classes=10)
    message = str(caught.value)
    assert str(source / TEST_LABELS) in message
    assert sums[TEST_LABELS] in message
    assert "0" * 64 in message
    assert caught.value.exit_code == 3


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _other_magic(path: Path) -> None:
    path.write_bytes(b"\0\0\x0d\x03" + path.read_bytes()[4:])


def _damaged_gzip(path: Path) -> None:
    Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes())[:-9])
    path.unlink()


def _no_gzip(path: Path) -> None:
    path.rename(f"{path}.gz")


@pytest.mark.parametrize("damage", [_truncate, _lengthen, _empty, _other_magic, _damaged_gzip, _no_gzip])
def test_damaged_file_is_rejected_by_name(source: Path, target: Path, damage: Callable[[Path], None]) -> None:
    damage(source / TRAIN_IMAGES)
    with pytest.raises(DataRejected, match=TRAIN_IMAGES):
        unpack_verified(source, target, sums=None, classes=10)


def test_images_of_another_size_are_rejected(source: Path, target: Path) -> None:
    write_idx(source / TRAIN_IMAGES, np.zeros((20, 32, 32), np.uint8))
    with pytest.raises(DataRejected, match="32 x 32"):
        unpack_verified(source, target, sums=None, classes=10)


def test_labels_for_other_images_are_rejected(source: Path, target: Path) -> None:
    write_idx(source / TRAIN_LABELS, np.zeros(19, np.uint8))
    with pytest.raises(DataRejected, match=r"20 images, .* 19 labels"):
        unpack_verified(source, target, sums=None, classes=10)


def test_label_without_class_is_rejected(source: Path, target: Path) -> None:
    write_idx(source / TRAIN_LABELS, np.full(20, 10, np.uint8))
    with pytest.raises(DataRejected, match="label 10"):
        unpack_verified(source, target, sums=None, classes=10)


def test_no_examples_are_rejected(source: Path, target: Path) -> None:
    write_idx(source / TRAIN_IMAGES, np.zeros((0, 28, 28), np.uint8))
    write_idx(source / TRAIN_LABELS, np.zeros(0, np.uint8))
    with pytest.raises(DataRejected, match="no images"):
        unpack_verified(source, target, sums=None, classes=10)


def test_missing_file_is_named(source: Path, target: Path) -> None:
    (source / TEST_LABELS).unlink()
    with pytest.raises(UsageError, match=TEST_LABELS) as caught:
        unpack_verified(source, target, sums=None, classes=10)
    assert isinstance(caught.value, PipelineError)
