"""Batch prediction through the command line, on the tiny run's model: the answers, what goes on, what is refused."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from mnist_tfx.components.batch_prediction.inputs import find_inputs, read
from mnist_tfx.components.batch_prediction.predict import answers
from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.live.model import model_digest
from mnist_tfx.contract.names import DATA_STATISTICS_PATH
from mnist_tfx.pipeline.home import Home
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.tiny_run import TinyRun, decode, read_split


def predict(run: TinyRun, source: Path | str, out: Path, *options: str | Path) -> Answer:
    return mnist_tfx("predict", "kmnist", "--home", run.home.root, "--batch", source, "--out", out, "--json", *options)


def probabilities(run: TinyRun, images: list[bytes]) -> np.ndarray:
    """What the model says of decoded pixels: another signature than those that are used."""
    answer = tf.saved_model.load(str(run.model)).signatures["images"](images=tf.constant(decode(images)))
    return np.asarray(answer["probabilities"])


@pytest.fixture(scope="module")
def images(tiny_run: TinyRun) -> list[bytes]:
    return [image for image, _ in read_split(tiny_run.examples, "test")]


@pytest.fixture(scope="module")
def folder(images: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images, the odd ones in a folder below, and two files that are none."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "odd").mkdir()
    (folder / ".hidden").write_bytes(b"")
    for number, image in enumerate(images):
        (folder / ("odd" if number % 2 else "") / f"{number:03d}.png").write_bytes(image)
    (folder / "050-cut.png").write_bytes(images[0][:50])
    (folder / "note.txt").write_text("no image")
    return folder


def test_a_folder_becomes_parquet_files_with_the_models_answers(
    tiny_run: TinyRun, folder: Path, images: list[bytes], tmp_path: Path
) -> None:
    answer = predict(tiny_run, folder, tmp_path / "out", "--part", "60")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert (told["images"], told["new_images"], told["unreadable"], told["parts"]) == (200, 200, 2, 4)
    assert set(told["problems"]) == {"050-cut.png", "note.txt"}
    assert (tmp_path / "out" / "_unreadable.csv").read_text().splitlines()[1].startswith("050-cut.png,")
    table = pq.read_table(tmp_path / "out")  # as a folder, with our other files in it
    numbers = [int(Path(key).stem) for key in table["key"].to_pylist()]
    assert sorted(numbers) == list(range(200))
    assert all(
        key == f"{'odd/' if n % 2 else ''}{n:03d}.png" for key, n in zip(table["key"].to_pylist(), numbers, strict=True)
    )
    found = np.array(table["probabilities"].to_pylist(), np.float32)
    expected = probabilities(tiny_run, [images[number] for number in numbers])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    about = json.loads(pq.read_schema(tmp_path / "out" / "part-00000-00000.parquet").metadata[b"mnist_tfx"])
    [version] = tiny_run.versions()
    assert (about["model"], about["version"]) == ("kmnist", int(version))
    assert (
        about["digest"]
        == model_digest(str(tiny_run.model))
        == model_digest(str(tiny_run.home.serving("kmnist") / version))
    )
    assert (tiny_run.home.serving("kmnist") / version / DATA_STATISTICS_PATH).exists()  # which does not count
    names = np.array(about["class_names"])
    assert table["label"].to_pylist() == names[found.argmax(axis=1)].tolist()


def test_tfrecords_and_a_tfds_split_get_the_same_answers_in_several_processes(
    tiny_run: TinyRun, images: list[bytes], tmp_path: Path
) -> None:
    expected = probabilities(tiny_run, images)
    pattern = tiny_run.examples / "Split-test" / "*.gz"
    workers = ("--set", "beam.workers=2")
    assert predict(tiny_run, pattern, tmp_path / "records", "--part", "70", *workers).code == 0
    records = pq.read_table(tmp_path / "records")
    assert len(list((tmp_path / "records").glob("part-*"))) == 4  # two files of 100
    assert records["key"][0].as_py() == "data_tfrecord-00000-of-00002.gz:0"
    np.testing.assert_allclose(np.array(records["probabilities"].to_pylist()), expected, rtol=0, atol=1e-5)
    assert predict(tiny_run, "tfds:kmnist:test[10:150]", tmp_path / "tfds").code == 0
    split = pq.read_table(tmp_path / "tfds")
    assert split["key"].to_pylist() == [f"kmnist:test:{number}" for number in range(10, 150)]
    np.testing.assert_allclose(np.array(split["probabilities"].to_pylist()), expected[10:150], rtol=0, atol=1e-5)


def test_a_dataset_is_found_where_a_run_finds_it(
    tiny: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny.data_dir))
    [unit] = find_inputs("tfds:kmnist:test", str(tmp_path), 200).units
    assert (unit.source, unit.first, unit.stop) == (str(tiny.folder), 0, 200)


def test_files_of_one_name_in_several_folders_have_keys_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("eval", "train"):
        (tmp_path / f"Split-{split}").mkdir()
        (tmp_path / f"Split-{split}" / "data.gz").touch()
    monkeypatch.chdir(tmp_path)
    for place in ("", f"{tmp_path}/"):
        names = [unit.name for unit in find_inputs(f"{place}Split-*/data*", "", 10).units]
        assert names == ["Split-eval/data.gz", "Split-train/data.gz"]
        [unit] = find_inputs(f"{place}Split-train/*", "", 10).units
        assert unit.name == "data.gz"
    monkeypatch.chdir("Split-train")
    assert find_inputs("data.gz", "", 10).units[0].name == "data.gz"


def test_many_rows_are_answered_in_parts_and_keep_their_places_around_one_that_is_refused() -> None:
    contents = [str(number).encode() for number in range(1300)]
    contents[700] = b"no number"
    asked: list[int] = []

    def call(rows: Sequence[bytes]) -> tf.Tensor:
        asked.append(len(rows))
        return tf.strings.to_number(tf.constant(rows), tf.int32)

    found: list[tuple[int, int | None]] = []
    for first, count, answer in answers(call, contents):
        numbers = [None] if answer is None else answer.numpy().tolist()
        found += zip(range(first, first + count), numbers, strict=True)
    assert found == [(number, None if number == 700 else number) for number in range(1300)]
    assert max(asked) == 512


def test_what_was_killed_goes_on(tiny_run: TinyRun, folder: Path, tmp_path: Path) -> None:
    command = ["predict", "kmnist", "--home", str(tiny_run.home.root), "--batch", str(folder), "--out"]
    program = f"import sys; from mnist_tfx.pipeline.cli import main; sys.exit(main({[*command, str(tmp_path)]!r}))"
    process = subprocess.Popen([sys.executable, "-c", program.replace("'--batch'", "'--part', '1', '--batch'")])
    parts: list[Path] = []
    while len(parts) < 5 and process.poll() is None:
        time.sleep(0.02)
        parts = sorted(tmp_path.glob("part-*.parquet"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("part-*.parquet")}
    assert 5 <= len(before) < 202
    assert all(pq.read_metadata(path).num_columns == 3 for path in before), "whole or not at all"
    answer = predict(tiny_run, folder, tmp_path, "--part", "1")
    told = json.loads(answer.out)
    assert told["images"] == 200 and 0 < told["new_images"] < 200
    assert all(path.stat().st_mtime_ns == modified for path, modified in before.items())
    assert len(set(pq.read_table(tmp_path)["key"].to_pylist())) == 200
    again = predict(tiny_run, folder, tmp_path, "--part", "1")
    assert json.loads(again.out)["new_images"] == 0
    other = predict(tiny_run, folder, tmp_path)
    assert other.code == 2 and "was begun with --part 1: name that again" in other.err


def test_a_damaged_tfrecord_file_is_told_and_what_is_before_it_kept(tiny_run: TinyRun, tmp_path: Path) -> None:
    source = sorted((tiny_run.examples / "Split-test").iterdir())[0]
    content = gzip.decompress(source.read_bytes())
    (tmp_path / "cut.tfrecord").write_bytes(content[: len(content) // 2])
    with tf.io.TFRecordWriter(str(tmp_path / "other.tfrecord")) as writer:
        writer.write(b"no Example")
    told = json.loads(predict(tiny_run, tmp_path / "*.tfrecord", tmp_path / "out").out)
    assert 0 < told["images"] < 100 and told["unreadable"] == 2
    assert told["problems"]["other.tfrecord:0"].startswith("is no tf.Example")
    assert told["problems"][f"cut.tfrecord:{told['images']}"] == "the TFRecord file is damaged from here on"


def test_other_inputs_or_another_model_in_the_same_folder_are_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "note.txt").write_text("no image")
    nothing = predict(tiny_run, source, out)
    assert (nothing.code, "none of 1" in nothing.err) == (3, True)
    (source / "another.txt").write_text("no image")
    changed = predict(tiny_run, source, out)
    assert changed.code == 2 and "no longer" in changed.err
    [version] = tiny_run.versions()
    newer = tiny_run.home.serving("kmnist") / str(int(version) + 1)
    shutil.copytree(tiny_run.home.serving("kmnist") / version, newer)
    try:
        (newer / "assets.extra" / "tf_serving_warmup_requests").unlink()  # what does not compute is no other model
        (newer / "saved_model.pb").write_bytes((newer / "saved_model.pb").read_bytes() + b"\n\0")
        (source / "another.txt").unlink()
        os.utime(source / "note.txt", ns=(1, 1))
        other = predict(tiny_run, source, out, "--version", newer.name)
        assert other.code == 2 and f"version {version}" in other.err
        assert predict(tiny_run, source, out, "--version", "7").code == 2
        none = predict(tiny_run, source, out, "--version", "0")
        assert none.code == 2 and "has no version 0" in none.err
    finally:
        shutil.rmtree(newer)


def test_a_model_without_a_version_that_can_be_loaded_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (home.serving("kmnist") / "3").mkdir(parents=True)  # a copy that was cut off
    answer = mnist_tfx("predict", "kmnist", "--batch", tmp_path, "--out", tmp_path / "out", "--home", home.root)
    assert answer.code == 1 and f"has no version in {home.serving('kmnist')} that could be loaded" in answer.err


def test_a_folder_of_predictions_is_none_of_the_images_beside_it(
    tiny_run: TinyRun, images: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "0.png").write_bytes(images[0])
    for new in (1, 0):
        answer = predict(tiny_run, tmp_path, tmp_path / "out")
        assert answer.code == 0, answer.err
        told = json.loads(answer.out)
        assert (told["images"], told["new_images"], told["unreadable"]) == (1, new, 0)
    for source in (tmp_path, tmp_path / "*"):
        answer = predict(tiny_run, source, tmp_path)
        assert answer.code == 2 and "is where the images are: name another folder" in answer.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "out"]


def test_a_first_record_whose_length_looks_like_gzip_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "large.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(bytes(0x8B1F))  # in a file, 1f 8b 00
    [chunk] = read(find_inputs(path, "", 10).units[0], str(tmp_path / "out"), 10)
    assert (chunk.keys, chunk.unreadable) == (["large.tfrecord:0"], [])


def test_names_with_the_signs_of_patterns_are_names(tiny_run: TinyRun, images: list[bytes], tmp_path: Path) -> None:
    place = tmp_path / "scans [1]"
    place.mkdir()
    with tf.io.TFRecordWriter(str(place / "a[1].tfrecord")) as writer:
        feature = {"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=images[:1]))}
        writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    answer = predict(tiny_run, place / "a[1].tfrecord", place / "out")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["images"] == 1


def test_files_without_examples_and_names_that_are_no_text_are_told(tiny_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "empty.tfrecord").touch()
    empty = predict(tiny_run, tmp_path / "empty.tfrecord", tmp_path / "out")
    assert (empty.code, "empty.tfrecord holds no images" in empty.err) == (2, True)
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.png")).touch()
    odd = predict(tiny_run, tmp_path / "in", tmp_path / "out2")
    assert odd.code == 2 and r"holds a name that is not UTF-8: b'caf\xe9.png'. Rename it." in odd.err


def test_wrong_usage_is_told(tiny_run: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):  # argparse: neither images nor --batch
        mnist_tfx("predict", "kmnist")
    assert mnist_tfx("predict", "kmnist", "--batch", tmp_path).code == 2
    assert predict(tiny_run, tmp_path / "none", tmp_path / "out").code == 2
    assert predict(tiny_run, tmp_path, tmp_path / "out").code == 2  # an empty folder
    for slicing in ("tests", "all[:50%]", "test[20:10]"):
        assert predict(tiny_run, f"tfds:kmnist:{slicing}", tmp_path / "out").code == 2
    assert not (tmp_path / "out").exists()
    (tmp_path / "note.txt").write_text("no image")
    there = predict(tiny_run, tmp_path, tmp_path / "note.txt")
    assert there.code == 1 and "note.txt is not a directory. Name another folder: --out DIR." in there.err
