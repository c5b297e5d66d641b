"""Preparing from a folder: what is read back, what is refused, and what happens to interrupted runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mnist_tfx.components.datasets.incoming import incoming_folder
from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.components.datasets.prepared import NotPrepared, load_prepared
from mnist_tfx.components.datasets.progress import silent
from mnist_tfx.components.datasets.published import SHA256, TRAIN_IMAGES
from mnist_tfx.contract.errors import DataRejected, PipelineError, UsageError
from tests.fixtures.tiny_dataset import draw_examples, prepare_tiny, write_idx_files

_ROOT = Path(__file__).parents[3]


def _visible(data_dir: Path) -> list[str]:
    """What lies in a data_dir, besides the lock."""
    return sorted(path.name for path in data_dir.iterdir() if path.name != ".lock") if data_dir.exists() else []


def test_tfds_load_reads_every_example_back(tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    prepared = prepare_tiny(tmp_path, train=600, test=200, seed=3)

    for split, count, seed in (("train", 600, 6), ("test", 200, 7)):
        images, labels = draw_examples(count, seed)
        written = sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))
        dataset = tfds.load("kmnist", split=split, data_dir=tmp_path, download=False, as_supervised=True)
        read = sorted((int(label), image.tobytes()) for image, label in tfds.as_numpy(dataset))
        assert read == written
    assert prepared.split_sizes == {"train": 600, "test": 200}
    assert (prepared.image_key, prepared.label_key, prepared.image_shape) == ("image", "label", (28, 28, 1))
    assert prepared.class_names[:3] == ("o", "ki", "su")
    assert _visible(tmp_path) == ["kmnist"]


def test_fingerprint_tells_content_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_idx_files(source, train=20, test=10)
    first = prepare("kmnist", tmp_path / "first", source=source)
    second = prepare("kmnist", tmp_path / "second", source=source)
    assert first.fingerprint == second.fingerprint

    pixels = bytearray((source / TRAIN_IMAGES).read_bytes())
    pixels[-1] ^= 1
    (source / TRAIN_IMAGES).write_bytes(pixels)
    third = prepare("kmnist", tmp_path / "third", source=source)
    assert third.fingerprint != first.fingerprint


def test_an_edit_of_prepared_data_is_seen_in_the_same_process(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_idx_files(source, train=20, test=10)
    before = prepare("kmnist", tmp_path, source=source)
    [names] = (tmp_path / "kmnist" / before.version).glob("label.labels.txt")
    content = names.read_text()
    assert load_prepared("kmnist", None, tmp_path).fingerprint == before.fingerprint
    names.write_text(content.replace("ki", "xi"))
    assert load_prepared("kmnist", None, tmp_path).fingerprint != before.fingerprint
    names.write_text(content)
    assert load_prepared("kmnist", None, tmp_path).fingerprint == before.fingerprint


def test_prepared_already_returns_at_once(tmp_path: Path) -> None:
    first = prepare_tiny(tmp_path, train=20, test=10)
    stages = []
    start = time.monotonic()
    # A source that does not exist: nothing is looked at but the data_dir.
    again = prepare("kmnist", tmp_path, source=tmp_path / "nowhere", progress=lambda stage, *_: stages.append(stage))
    assert time.monotonic() - start < 2
    assert again == first
    assert stages == []


def test_asked_version_is_found_or_refused(tmp_path: Path) -> None:
    first = prepare_tiny(tmp_path, train=20, test=10)
    assert load_prepared("kmnist", "3.0.1", tmp_path) == first
    with pytest.raises(NotPrepared, match="mnist-tfx data prepare"):
        load_prepared("kmnist", "1.0.0", tmp_path)
    with pytest.raises(UsageError, match=r"3\.0\.1 only"):
        prepare("kmnist", tmp_path, version="1.0.0", source=tmp_path)


def test_the_newest_version_is_the_highest_number_by_number(tmp_path: Path) -> None:
    first = prepare_tiny(tmp_path, train=20, test=10)
    for version in ("3.0.9", "3.0.10"):
        shutil.copytree(first.folder, tmp_path / "kmnist" / version)
    assert load_prepared("kmnist", None, tmp_path).version == "3.0.10"


def test_wrong_sum_leaves_nothing_behind(tmp_path: Path) -> None:
    source, data_dir = tmp_path / "source", tmp_path / "data"
    write_idx_files(source, train=20, test=10)
    digest = hashlib.sha256((source / TRAIN_IMAGES).read_bytes()).hexdigest()
    with pytest.raises(DataRejected) as caught:
        prepare("mnist", data_dir, source=source)
    for part in (str(source / TRAIN_IMAGES), digest, SHA256["mnist"][TRAIN_IMAGES]):
        assert part in str(caught.value)
    assert _visible(data_dir) == []


def _swap_features(record: bytes) -> bytes:
    """The same tf.Example of an image and a label with its two features in the other order."""
    import tensorflow as tf

    features = tf.train.Example.FromString(record).features
    image_was_first = record.index(b"image") < record.index(b"label")
    parts = [
        tf.train.Features(feature={key: features.feature[key]}).SerializeToString()
        for key in (("label", "image") if image_was_first else ("image", "label"))
    ]
    size = sum(map(len, parts))
    assert 128 <= size < 16384, "the length below is written as a varint of two bytes"
    return b"\x0a" + bytes([size & 127 | 128, size >> 7]) + b"".join(parts)


def test_fingerprint_ignores_the_order_of_features_in_records(tmp_path: Path) -> None:
    import tensorflow as tf

    first = prepare_tiny(tmp_path, train=20, test=10)
    for path in (tmp_path / "kmnist" / first.version).glob("*.tfrecord-*"):
        records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                swapped = _swap_features(record)
                assert swapped != record
                writer.write(swapped)
    assert load_prepared("kmnist", None, tmp_path) == first


@pytest.mark.parametrize("damage", ["cut", "missing", "info", "record"])
def test_incomplete_dataset_is_prepared_again(tmp_path: Path, damage: str) -> None:
    whole = prepare_tiny(tmp_path, train=20, test=10)
    folder = tmp_path / "kmnist" / whole.version
    (records,) = folder.glob("*-train.tfrecord-*")
    if damage == "cut":
        records.write_bytes(records.read_bytes()[:-1])
    elif damage == "missing":
        records.unlink()
    elif damage == "record":
        records.write_bytes(b"\xff" * records.stat().st_size)
    else:
        (folder / "dataset_info.json").write_text("{")
    with pytest.raises(NotPrepared, match=r"not complete|damaged"):
        load_prepared("kmnist", None, tmp_path)
    assert prepare_tiny(tmp_path, train=20, test=10) == whole
    assert _visible(tmp_path) == ["kmnist"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from mnist_tfx.components.datasets.prepare import prepare

def kill_at(stage, done=0, total=None):
    if stage == sys.argv[3] and done >= int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

prepare("kmnist", Path(sys.argv[1]), source=Path(sys.argv[2]), progress=kill_at)
"""


@pytest.mark.parametrize(
    ("stage", "done"),
    [("verifying the files", 0), ("writing examples", 500), ("writing examples", 800), ("moving into place", 0)],
)
def test_killed_run_is_finished_by_the_next(tmp_path: Path, stage: str, done: int) -> None:
    source, data_dir = tmp_path / "source", tmp_path / "data"
    write_idx_files(source, train=600, test=200)
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(data_dir), str(source), stage, str(done)], cwd=_ROOT, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert [name for name in _visible(data_dir) if not name.startswith(".incoming-")] == []
    with pytest.raises(NotPrepared):
        load_prepared("kmnist", None, data_dir)

    assert prepare("kmnist", data_dir, source=source).split_sizes == {"train": 600, "test": 200}
    assert _visible(data_dir) == ["kmnist"]


def test_second_process_waits_for_the_first(tmp_path: Path) -> None:
    source, data_dir = tmp_path / "source", tmp_path / "data"
    write_idx_files(source, train=20, test=10)
    script = """
import sys
from pathlib import Path
from mnist_tfx.components.datasets.prepare import prepare
prepare("kmnist", Path(sys.argv[1]), source=Path(sys.argv[2]), progress=lambda stage, *_: print(stage, flush=True))
"""
    command = [sys.executable, "-c", script, str(data_dir), str(source)]
    with incoming_folder(data_dir, silent) as mine:
        second = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert second.stdout is not None
        assert second.stdout.readline().startswith("waiting for another process")
        assert mine.is_dir()
    second.communicate(timeout=120)
    assert second.returncode == 0
    assert load_prepared("kmnist", None, data_dir).split_sizes == {"train": 20, "test": 10}


def test_old_leftovers_of_tfds_are_removed_and_fresh_ones_kept(tmp_path: Path) -> None:
    old, fresh = tmp_path / "kmnist" / "incomplete.AAAAAA_3.0.1", tmp_path / "kmnist" / "incomplete.BBBBBB_3.0.1"
    for folder in (old, fresh):
        folder.mkdir(parents=True)
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    with incoming_folder(tmp_path, silent):
        pass
    assert _visible(tmp_path / "kmnist") == [fresh.name]


def test_unknown_dataset_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'fashion_mnist'"):
        prepare("fashion_mnits", tmp_path)
    assert _visible(tmp_path) == []


@pytest.mark.parametrize("name", ["../mnist", "/tmp", "", "mnist:3.0.1"])
def test_what_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no dataset name"):
        prepare(name, tmp_path)


def test_a_damaged_dataset_that_tfds_does_not_know_is_no_unknown_one(tmp_path: Path) -> None:
    (tmp_path / "flowers" / "1.0.0").mkdir(parents=True)
    with pytest.raises(NotPrepared, match="put it there anew, or remove it"):
        prepare("flowers", tmp_path)


def test_configurations_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="emnist/balanced"):
        prepare("emnist", tmp_path)
    with pytest.raises(UsageError, match="'balanced'"):
        prepare("emnist/balancd", tmp_path)


def test_dataset_without_labeled_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="supervised keys"):
        prepare("iris", tmp_path)
    assert _visible(tmp_path) == []


def test_folder_only_stands_in_for_idx_datasets(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--from cannot be used"):
        prepare("cifar10", tmp_path, source=tmp_path)


def test_read_only_data_dir_is_a_clear_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(PipelineError, match="cannot write"):
        prepare("kmnist", blocked / "data", source=tmp_path)


def test_tiny_dataset_has_every_class_in_every_split() -> None:
    _, labels = draw_examples(200, 1)
    assert np.bincount(labels).tolist() == [20] * 10
