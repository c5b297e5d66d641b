"""Spans: labelled images that are added to a dataset, and read with what was there before."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tfx.types.standard_artifacts import Examples

from mnist_tfx.components.datasets.images.add import add_span
from mnist_tfx.components.datasets.images.listing import ImageSource
from mnist_tfx.components.datasets.images.prepare import Imported
from mnist_tfx.components.datasets.prepared import NotPrepared, PreparedDataset, composed, load_prepared
from mnist_tfx.components.datasets.spans import added_spans, spans_dir, with_newest_spans, with_spans
from mnist_tfx.components.settings import Splits
from mnist_tfx.components.tfds_example_gen.component import TfdsExampleGen
from mnist_tfx.components.tfds_example_gen.executor import Executor
from mnist_tfx.contract.errors import DataRejected, UsageError
from mnist_tfx.contract.names import SPLITS
from tests.fixtures.command import mnist_tfx
from tests.fixtures.executors import artifact, context
from tests.fixtures.new_images import CLASS_NAMES, SHAPE, write_new_images
from tests.fixtures.tiny_dataset import draw_examples
from tests.fixtures.tiny_run import decode, read_examples

PATTERN = {"train": "train[:500]", "eval": "train[500:]", "test": "test"}


@pytest.fixture
def dataset(tiny: PreparedDataset, tmp_path: Path) -> PreparedDataset:
    """The tiny dataset, in a data_dir of its own."""
    shutil.copytree(tiny.data_dir / "kmnist", tmp_path / "datasets" / "kmnist")
    return load_prepared("kmnist", None, tmp_path / "datasets")


@dataclass(frozen=True)
class Added:
    """The tiny dataset and what became of three folders: a first, the same with more, and the same again."""

    dataset: PreparedDataset
    folder: Path
    first: Imported
    second: Imported


@pytest.fixture(scope="module")
def added(tiny: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Added:
    place = tmp_path_factory.mktemp("added")
    shutil.copytree(tiny.data_dir / "kmnist", place / "datasets" / "kmnist")
    dataset = load_prepared("kmnist", None, place / "datasets")
    base_images, base_labels = draw_examples(600, 0)  # as `prepare_tiny` draws split train
    write_new_images(place / "new", 100, seed=7)
    for number in range(5):  # of the base data, in another file format
        Image.fromarray(base_images[number]).save(place / "new" / CLASS_NAMES[base_labels[number]] / f"{number}.bmp")
    number, first = add_span(dataset, ImageSource(place / "new"), SHAPE)
    assert number == 2
    write_new_images(place / "new", 40, seed=8)
    number, second = add_span(dataset, ImageSource(place / "new"), SHAPE, with_test=False)
    assert number == 3
    return Added(dataset, place / "new", first, second)


def generate(dataset: PreparedDataset, folder: Path) -> Examples:
    component = TfdsExampleGen(
        dataset=dataset.name,
        version=dataset.version,
        fingerprint=dataset.fingerprint,
        data_dir=dataset.data_dir,
        splits=Splits.model_validate(PATTERN),
        shards=2,
        labels=dataset.labels,
        spans={number: span.version for number, span in dataset.spans.items()},
    )
    examples = artifact(Examples, folder / "examples")
    Executor(context(folder)).Do({}, {"examples": [examples]}, component.exec_properties)
    return examples


def spans_of(examples: Examples, split: str) -> Counter[tuple[int, ...]]:
    return Counter(
        tuple(each.features.feature["span"].int64_list.value) for each in read_examples(Path(examples.uri), split)
    )


def test_what_is_new_becomes_a_span_and_what_is_known_by_its_pixels_is_left_out(added: Added) -> None:
    assert added.first.decided.known == 5, "of the base data"
    assert added.second.decided.known == 105, "of the base data and of the span before"
    sizes = added.first.dataset.split_sizes
    assert sum(sizes.values()) == 100 and sizes["train"] > sizes["test"] > 0 < sizes["eval"]
    assert sum(added.second.dataset.split_sizes.values()) == 40 and added.second.dataset.split_sizes["test"] == 0
    for imported in (added.first, added.second):
        assert imported.dataset.class_names == CLASS_NAMES
    with pytest.raises(DataRejected, match="of 145 files, 145 show what the data have already"):
        add_span(added.dataset, ImageSource(added.folder), SHAPE)
    assert added_spans(added.dataset) == [2, 3]


def test_a_class_that_the_dataset_has_not_is_named_and_nothing_written(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    write_new_images(tmp_path / "new", 20, seed=7)
    (tmp_path / "new" / "eleven").mkdir()
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "new" / "eleven" / "a.png")
    with pytest.raises(UsageError, match=r"kmnist has no class 'eleven'\. Its classes: o, ki"):
        add_span(dataset, ImageSource(tmp_path / "new"), SHAPE)
    assert added_spans(dataset) == []


def test_images_that_are_added_at_another_size_are_known_at_that(dataset: PreparedDataset, tmp_path: Path) -> None:
    images, labels = draw_examples(600, 0)  # as `prepare_tiny` draws split train
    write_new_images(tmp_path / "new", 20, seed=7)
    for number in range(5):
        Image.fromarray(images[number]).save(tmp_path / "new" / CLASS_NAMES[labels[number]] / f"{number}.bmp")
    _, made = add_span(dataset, ImageSource(tmp_path / "new"), (14, 16, 3))
    assert (made.decided.known, made.shape) == (5, (14, 16, 3))
    assert sum(made.dataset.split_sizes.values()) == 20
    with pytest.raises(DataRejected, match="of 25 files, 25 show what the data have already"):
        add_span(dataset, ImageSource(tmp_path / "new"), SHAPE)


def test_too_many_damaged_files_are_rejected_and_leave_no_span(dataset: PreparedDataset, tmp_path: Path) -> None:
    write_new_images(tmp_path / "new", 20, seed=7)
    (tmp_path / "new" / CLASS_NAMES[0] / "empty.png").touch()
    with pytest.raises(DataRejected, match=r"1 of 21 image files cannot be read, .*max_unreadable = 0\.04 "):
        add_span(dataset, ImageSource(tmp_path / "new"), SHAPE, max_unreadable=0.04)
    assert [path.name for path in spans_dir(dataset).iterdir()] == [".lock"]
    number, made = add_span(dataset, ImageSource(tmp_path / "new"), SHAPE, max_unreadable=0.05)
    assert (number, made.decided.unreadable, sum(made.dataset.split_sizes.values())) == (2, 1, 20)


def test_examples_tell_their_span_and_their_lineage_names_all(added: Added, tmp_path: Path) -> None:
    dataset, sizes = added.dataset, {2: added.first.dataset.split_sizes, 3: added.second.dataset.split_sizes}
    whole = with_newest_spans(dataset, "all")
    examples = generate(whole, tmp_path / "whole")
    first = {"train": 500, "eval": 100, "test": 200}
    for split in SPLITS:
        expected = {(1,): first[split], **{(n,): of[split] for n, of in sizes.items() if of[split]}}
        assert spans_of(examples, split) == expected
    assert examples.span == 3
    assert json.loads(examples.get_string_custom_property("spans")) == {"1": "3.0.1", "2": "1.0.0", "3": "1.0.0"}
    assert json.loads(examples.get_string_custom_property("span_counts"))["1"] == first

    newest = with_newest_spans(dataset, 2)
    assert list(newest.spans) == [2, 3]
    assert set(spans_of(generate(newest, tmp_path / "newest"), "train")) == {(2,), (3,)}
    assert len({dataset.fingerprint, whole.fingerprint, newest.fingerprint}) == 3
    assert with_spans(dataset, {1: None, 2: "1.0.0", 3: None}).fingerprint == whole.fingerprint
    with pytest.raises(DataRejected, match="has changed since this pipeline was made"):
        generate(replace(whole, spans=newest.spans), tmp_path / "changed")


def test_classes_that_stand_for_several_hold_for_spans_too(added: Added, tmp_path: Path) -> None:
    grouped = with_newest_spans(added.dataset, "all").grouped({"first": CLASS_NAMES[:9], "last": CLASS_NAMES[9:]})
    of_span = Counter(
        each.features.feature["label"].int64_list.value[0]
        for examples in [generate(grouped, tmp_path)]
        for split in SPLITS
        for each in read_examples(Path(examples.uri), split)
        if each.features.feature["span"].int64_list.value[0] == 2
    )
    assert of_span == {0: 90, 1: 10}


def test_a_span_keeps_its_classes_when_the_datasets_come_in_another_order(added: Added, tmp_path: Path) -> None:
    shutil.copytree(added.dataset.data_dir, tmp_path / "datasets")
    [names] = (tmp_path / "datasets" / "kmnist").glob("*/label.labels.txt")
    names.write_text("\n".join(reversed(CLASS_NAMES)))
    whole = with_newest_spans(load_prepared("kmnist", None, tmp_path / "datasets"), "all")
    assert whole.spans[1].labels is None and whole.spans[2].labels == tuple(reversed(range(10)))

    grouped = whole.grouped({"first": CLASS_NAMES[:3], "others": CLASS_NAMES[3:]})
    images, labels = draw_examples(100, 1007)  # as `write_new_images` drew span 2
    expected = {image.tobytes(): int(label >= 3) for image, label in zip(images, labels, strict=True)}
    examples = generate(grouped, tmp_path)
    of_span = {
        decode([each.features.feature["image"].bytes_list.value[0]]).tobytes(): (
            each.features.feature["label"].int64_list.value[0]
        )
        for split in SPLITS
        for each in read_examples(Path(examples.uri), split)
        if each.features.feature["span"].int64_list.value[0] == 2
    }
    assert of_span == expected


def test_a_span_may_lack_a_class_of_the_dataset_and_not_the_other_way_round(added: Added) -> None:
    more = replace(added.dataset, class_names=("new", *CLASS_NAMES))
    whole = with_newest_spans(more, "all")
    assert whole.spans[2].labels == tuple(range(1, 11))
    grouped = whole.grouped({"first": ("new", *CLASS_NAMES[:4]), "last": CLASS_NAMES[4:]})
    assert grouped.spans[2].labels == (0,) * 4 + (1,) * 6
    fewer = replace(added.dataset, class_names=CLASS_NAMES[:8])
    with pytest.raises(UsageError, match="span 2 of kmnist has class re, wo, which the dataset has no more: remove "):
        with_newest_spans(fewer, "all")


def test_class_numbers_are_changed_one_time_after_the_other() -> None:
    assert composed((1, 0), (5, 6)) == (6, 5)
    assert composed((1, 0), None) == composed(None, (1, 0)) == (1, 0) and composed(None, None) is None


def test_a_split_to_which_the_newest_span_gives_nothing_is_a_file_without_examples(
    added: Added, tmp_path: Path
) -> None:
    examples = generate(with_newest_spans(added.dataset, 1), tmp_path)
    assert sum(spans_of(examples, "train").values()) > 0 and not spans_of(examples, "test")
    assert len(list((tmp_path / "examples" / "Split-test").iterdir())) == 1


def test_what_a_kill_leaves_is_no_span_and_a_damaged_one_is_told(added: Added, tmp_path: Path) -> None:
    shutil.copytree(added.dataset.data_dir, tmp_path / "datasets")
    dataset = load_prepared("kmnist", None, tmp_path / "datasets")
    spans = tmp_path / "datasets" / "spans" / "kmnist"
    (spans / "span_4").mkdir()
    assert added_spans(dataset) == [2, 3] and list(with_newest_spans(dataset, "all").spans) == [1, 2, 3]
    [shard] = (spans / "span_3" / "1.0.0").glob("*-train.tfrecord-*")
    whole = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(NotPrepared) as caught:
        with_newest_spans(dataset, "all")
    assert f"split 'train' is {whole - 1} bytes long instead of {whole}. Remove {spans / 'span_3'}, " in str(
        caught.value
    )
    assert "data prepare" not in str(caught.value)


def test_without_additions_nothing_changes(dataset: PreparedDataset, tmp_path: Path) -> None:
    assert with_newest_spans(dataset, "all") is dataset and with_newest_spans(dataset, 1) is dataset
    examples = generate(dataset, tmp_path)
    assert spans_of(examples, "test") == {(): 200}
    assert not examples.get_string_custom_property("spans")


def test_nothing_is_added_where_every_other_home_would_read_it(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(dataset.data_dir))
    before = dataset.data_dir / "spans" / "kmnist"
    write_new_images(tmp_path / "new", 30, seed=7)
    home = tmp_path / "home"
    command = ("data", "add", "--dataset", "kmnist", tmp_path / "new", "--home", home)
    answer = mnist_tfx(*command)
    copied = home / "datasets" / "kmnist" / dataset.version
    assert answer.code == 2 and f"Copy {dataset.folder} to {copied}, and add again" in answer.err
    assert [path.name for path in dataset.data_dir.iterdir()] == ["kmnist"]
    before.mkdir(parents=True)
    assert f" to {copied} and {before} to {home}/datasets/spans/kmnist, and add" in mnist_tfx(*command).err
    shutil.copytree(dataset.folder, copied)
    assert mnist_tfx(*command).code == 0
    assert added_spans(load_prepared("kmnist", None, home / "datasets")) == [2] and not added_spans(dataset)


def test_the_command_adds_and_tells(dataset: PreparedDataset, tmp_path: Path) -> None:
    write_new_images(tmp_path / "new", 30, seed=7)
    home = dataset.data_dir.parent
    answer = mnist_tfx("data", "add", "--dataset", "kmnist", tmp_path / "new", "--no-test", "--home", home)
    assert answer.code == 0, answer.err
    assert "span 2 of kmnist: 30 images of 30 files" in answer.out and "test 0" in answer.out
