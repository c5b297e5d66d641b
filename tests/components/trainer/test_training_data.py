"""The Trainer's reading of a split: each example once an epoch, augmented in training alone, the waiting counted."""

from __future__ import annotations

import hashlib
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from mnist_tfx.components.settings import AugmentationSettings
from mnist_tfx.components.trainer import training_data
from mnist_tfx.components.trainer.augmentation import augment
from mnist_tfx.components.trainer.training_data import (
    DecodedExamples,
    TrainingInput,
    evaluation_batches,
    examples_digest,
)
from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.contract.errors import PipelineError
from tests.fixtures.tiny_run import TinyRun, decode, read_split
from tests.fixtures.training import NORMALIZATION, SHAPE, decoded

STRONG = AugmentationSettings(flip=True, shift=3.0, rotation=20.0, elastic=2.0)


def grey_examples(count: int = 120) -> DecodedExamples:
    """Images of one colour, which is their index, so that what was made of them still tells which they are."""
    images = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28).reshape(count, *SHAPE)
    return DecodedExamples((np.arange(count) * 7) % 10, SHAPE, images.__getitem__)


def training_input(
    examples: DecodedExamples,
    augmentation: AugmentationSettings = AugmentationSettings(),  # noqa: B008  it is frozen
    seed: int = 3,
) -> TrainingInput:
    return TrainingInput(examples, NORMALIZATION, augmentation, num_classes=10, batch_size=50, seed=seed)


def epoch_of(data: TrainingInput, epoch: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """All pixels and targets of an epoch."""
    data.epoch.assign(epoch)
    pixels, targets = zip(*data.batches().as_numpy_iterator(), strict=True)
    return np.concatenate(pixels), np.concatenate(targets)


@pytest.mark.parametrize("memory", [0, 2**30], ids=["kept on disk", "kept in memory"])
def test_an_epoch_sees_every_example_once_and_in_an_order_of_its_own(
    tiny_run: TinyRun, tmp_path: Path, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_data, "_MEMORY_BYTES", memory)
    examples = decoded(tiny_run.examples, "eval", tmp_path)
    assert len(list(tmp_path.iterdir())) == (1 if memory == 0 else 0)
    data = training_input(examples)
    assert data.steps == 3
    first, second = epoch_of(data, 0)[0], epoch_of(data, 1)[0]
    expected = decode([image for image, _ in read_split(tiny_run.examples, "eval")])
    rows = [sorted(row.tobytes() for row in pixels) for pixels in (first, second)]
    assert rows[0] == rows[1] == sorted(row.tobytes() for row in NORMALIZATION(tf.constant(expected)).numpy())
    assert len(set(rows[0])) == 120
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(epoch_of(data, 0)[0], first)


def test_decoded_examples_are_the_splits_images_and_labels(tiny_run: TinyRun, tmp_path: Path) -> None:
    examples = decoded(tiny_run.examples, "eval", tmp_path)
    images, labels = zip(*read_split(tiny_run.examples, "eval"), strict=True)
    np.testing.assert_array_equal(examples.labels, labels)
    np.testing.assert_array_equal(examples.read_images(np.arange(len(examples))), decode(list(images)))


def test_a_file_of_examples_is_named_by_its_content_without_being_held_in_memory(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(16 * 2**20 + 5)
    (tmp_path / "train.gz").write_bytes(content)
    tracemalloc.start()
    try:
        digest = examples_digest([str(tmp_path / "train*")])
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert digest == hashlib.sha256(hashlib.sha256(content).digest() + b"end of split").hexdigest()


def test_training_sees_the_same_with_decoded_examples_in_memory_and_on_disk(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = epoch_of(training_input(decoded(tiny_run.examples, "train", tmp_path), STRONG), 1)
    monkeypatch.setattr(training_data, "_MEMORY_BYTES", 0)
    on_disk = epoch_of(training_input(decoded(tiny_run.examples, "train", tmp_path), STRONG), 1)
    np.testing.assert_array_equal(on_disk[0], in_memory[0])
    np.testing.assert_array_equal(on_disk[1], in_memory[1])


def test_examples_that_fit_neither_in_memory_nor_on_the_disk_are_an_error_with_the_remedy(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_data, "_MEMORY_BYTES", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore[attr-defined]
    with pytest.raises(PipelineError, match=r"120 decoded images need .* free. Set TMPDIR"):
        decoded(tiny_run.examples, "eval", tmp_path)


@pytest.mark.parametrize("augmentation", [AugmentationSettings(), STRONG], ids=["plain", "augmented"])
def test_every_image_keeps_its_label(augmentation: AugmentationSettings) -> None:
    examples = grey_examples()
    pixels, targets = epoch_of(training_input(examples, augmentation), 0)
    indices = np.rint(pixels[:, 14, 14, 0] * 255).astype(int)
    assert sorted(indices) == list(range(120))
    np.testing.assert_array_equal(targets, np.eye(10)[examples.labels[indices]])


def test_every_epoch_augments_anew_as_the_seed_says(tiny_run: TinyRun, tmp_path: Path) -> None:
    examples = decoded(tiny_run.examples, "eval", tmp_path)
    data = training_input(examples, STRONG)
    first, second = epoch_of(data, 0)[0], epoch_of(data, 1)[0]
    np.testing.assert_array_equal(epoch_of(data, 0)[0], first)
    np.testing.assert_array_equal(epoch_of(training_input(examples, STRONG), 1)[0], second)
    other_seed = epoch_of(training_input(examples, STRONG, seed=4), 0)[0]
    images = {pixels.tobytes() for epoch in (first, second, other_seed) for pixels in epoch}
    assert len(images) == 3 * len(examples)  # no image twice


def test_an_epoch_is_what_augment_makes_of_each_batch(tiny_run: TinyRun, tmp_path: Path) -> None:
    data = training_input(decoded(tiny_run.examples, "eval", tmp_path), STRONG)
    plain, changed = (
        epoch_of(training_input(decoded(tiny_run.examples, "eval", tmp_path), settings), 2)[0]
        for settings in (AugmentationSettings(), STRONG)
    )
    for step in range(data.steps):
        batch = slice(step * 50, (step + 1) * 50)
        seed = tf.random.fold_in(tf.constant([3, 2], tf.int64), tf.constant(step, tf.int64))
        images = tf.constant(np.rint(plain[batch] * 255).astype(np.uint8))
        np.testing.assert_allclose(changed[batch], NORMALIZATION(augment(images, STRONG, seed)), atol=1e-3)


def test_evaluation_sees_the_images_as_they_are_and_in_their_order(tiny_run: TinyRun, tmp_path: Path) -> None:
    images, labels = zip(*read_split(tiny_run.examples, "eval"), strict=True)
    batches = evaluation_batches(
        decoded(tiny_run.examples, "eval", tmp_path), NORMALIZATION, num_classes=10, batch_size=50
    )
    for _ in range(2):
        pixels, targets = (np.concatenate(parts) for parts in zip(*batches.as_numpy_iterator(), strict=True))
        np.testing.assert_array_equal(pixels, NORMALIZATION(tf.constant(decode(list(images)))))
        np.testing.assert_array_equal(targets, np.eye(10)[list(labels)])


def test_evaluation_holds_fewer_images_at_once_only_where_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.zeros((1200, *SHAPE), np.uint8)
    examples = DecodedExamples(np.zeros(1200, np.int64), SHAPE, images.__getitem__)
    for sizes in ([1000, 200], [500, 500, 200]):
        batches = evaluation_batches(examples, NORMALIZATION, num_classes=2, batch_size=1000)
        assert [len(targets) for _, targets in batches] == sizes
        monkeypatch.setattr(training_data, "_EVALUATION_BYTES", 4 * images[:500].size)


def waited(read_seconds: float, train_seconds: float) -> float:
    """Seconds that an epoch of 8 batches waited for a reader, where both sides sleep for each batch."""
    quick = grey_examples(80)

    def read(indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        time.sleep(read_seconds)
        return quick.read_images(indices)

    examples = DecodedExamples(quick.labels, SHAPE, read)
    data = TrainingInput(examples, NORMALIZATION, AugmentationSettings(), num_classes=10, batch_size=10, seed=0)
    for _ in data.batches():
        time.sleep(train_seconds)
    return float(data.waited)


def test_waiting_for_a_slow_reader_is_counted_and_training_is_not() -> None:
    slow_reader = waited(read_seconds=0.2, train_seconds=0.0)
    slow_training = waited(read_seconds=0.0, train_seconds=0.2)
    # As many batches are read at once as there are cores.
    assert slow_reader > 0.9 * 8 * 0.2 / cpu_count()
    assert slow_training < slow_reader / 2
