"""TfdsExampleGen: what it writes is what TFDS holds, each example once."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples

from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.components.datasets.prepared import NotPrepared, PreparedDataset
from mnist_tfx.components.settings import Splits
from mnist_tfx.components.tfds_example_gen.component import TfdsExampleGen
from mnist_tfx.components.tfds_example_gen.executor import Executor, plan_shards
from mnist_tfx.components.transform.images import fit_images
from mnist_tfx.contract.errors import DataRejected, UsageError
from mnist_tfx.contract.names import SPLITS
from tests.fixtures.executors import artifact, context
from tests.fixtures.tiny_dataset import prepare_tiny
from tests.fixtures.tiny_run import SPLIT_SIZES, TinyRun, read_examples, read_split


def generate(
    dataset: PreparedDataset,
    folder: Path,
    *,
    shards: int = 1,
    fit_to: tuple[int, int, int] | None = None,
    **splits: str,
) -> Examples:
    """Runs the component's own executor with the component's own parameters."""
    component = TfdsExampleGen(
        dataset=dataset.name,
        version=dataset.version,
        fingerprint=dataset.fingerprint,
        data_dir=dataset.data_dir,
        splits=Splits.model_validate(splits),
        shards=shards,
        fit_to=fit_to,
        labels=dataset.labels,
        spans={number: span.version for number, span in dataset.spans.items()},
    )
    examples = artifact(Examples, folder / "examples")
    Executor(context(folder)).Do({}, {"examples": [examples]}, component.exec_properties)
    return examples


def stored(dataset: PreparedDataset, split: str) -> list[tuple[bytes, int]]:
    """Image bytes and labels as TFDS stores them."""
    builder = tfds.builder(dataset.name, data_dir=dataset.data_dir)
    data = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False)
    return [(bytes(row["image"]), int(row["label"])) for row in tfds.as_numpy(data)]


def files(examples: Path) -> dict[str, bytes]:
    return {str(path.relative_to(examples)): path.read_bytes() for path in examples.rglob("*") if path.is_file()}


def test_each_split_has_the_examples_that_the_recipe_names(tiny_run: TinyRun) -> None:
    assert {split: len(read_split(tiny_run.examples, split)) for split in SPLITS} == SPLIT_SIZES


@pytest.mark.parametrize(("split", "slicing"), [("eval", "train[60:180]"), ("test", "test")])
def test_bytes_and_labels_are_those_that_tfds_stores(
    tiny: PreparedDataset, tiny_run: TinyRun, split: str, slicing: str
) -> None:
    assert read_split(tiny_run.examples, split) == stored(tiny, slicing)
    assert all(image.startswith(b"\x89PNG") for image, _ in read_split(tiny_run.examples, split))


def test_every_example_is_in_exactly_one_split(tiny: PreparedDataset, tiny_run: TinyRun) -> None:
    written = Counter(example for split in SPLITS for example in read_split(tiny_run.examples, split))
    assert written == Counter(stored(tiny, "train") + stored(tiny, "test"))


def test_an_example_has_the_two_features_and_nothing_else(tiny_run: TinyRun) -> None:
    for example in read_examples(tiny_run.examples, "eval"):
        assert set(example.features.feature) == {"image", "label"}
        assert len(example.features.feature["image"].bytes_list.value) == 1
        assert len(example.features.feature["label"].int64_list.value) == 1


@pytest.mark.parametrize("shards", [1, 3])
def test_a_split_is_divided_evenly_into_as_many_files_as_asked(
    tiny: PreparedDataset, tmp_path: Path, shards: int
) -> None:
    generate(tiny, tmp_path, shards=shards, train="train[:500]", eval="train[500:]")
    for split, count in (("train", 500), ("eval", 100), ("test", 200)):
        paths = sorted((tmp_path / "examples" / f"Split-{split}").iterdir())
        assert [path.name for path in paths] == [f"data_tfrecord-{i:05d}-of-{shards:05d}.gz" for i in range(shards)]
        sizes = [
            sum(1 for _ in tf.data.TFRecordDataset(str(path), compression_type="GZIP").as_numpy_iterator())
            for path in paths
        ]
        assert sum(sizes) == count and max(sizes) - min(sizes) <= 1


def test_two_runs_write_the_same_bytes(tiny: PreparedDataset, tmp_path: Path) -> None:
    for name in ("first", "second"):
        generate(tiny, tmp_path / name, shards=2, train="train[:500]", eval="train[500:]")
    assert files(tmp_path / "first" / "examples") == files(tmp_path / "second" / "examples")


def test_the_artifact_tells_splits_counts_format_and_fingerprint(tiny: PreparedDataset, tmp_path: Path) -> None:
    examples = generate(tiny, tmp_path, train="train[:500]", eval="train[500:]")
    assert artifact_utils.decode_split_names(examples.split_names) == ["train", "eval", "test"]
    assert examples.get_string_custom_property("fingerprint") == tiny.fingerprint
    assert json.loads(examples.get_string_custom_property("counts")) == {"train": 500, "eval": 100, "test": 200}
    assert examples.get_string_custom_property("file_format") == "tfrecords_gzip"
    assert examples.get_string_custom_property("payload_format") == "FORMAT_TF_EXAMPLE"


def test_an_empty_split_is_a_file_without_records(tiny: PreparedDataset, tmp_path: Path) -> None:
    generate(tiny, tmp_path, shards=3, train="train", eval="train[600:]")
    assert len(list((tmp_path / "examples" / "Split-eval").iterdir())) == 1
    assert read_split(tmp_path / "examples", "eval") == []


@pytest.mark.parametrize(
    ("splits", "shared"),
    [
        ({"train": "train", "eval": "train[90%:]"}, "train and eval"),
        ({"train": "train[:500]", "eval": "train[499:]"}, "train and eval"),
        ({"train": "train[:50%]", "eval": "train[50%:]", "test": "test+train[:1]"}, "train and test"),
        ({"train": "train+test[:10]", "eval": "test[10:20]", "test": "test"}, "train and test"),
    ],
)
def test_splits_that_share_examples_are_refused(tiny: PreparedDataset, splits: dict[str, str], shared: str) -> None:
    with pytest.raises(UsageError, match=f"splits {shared} share examples of kmnist's"):
        plan_shards(tiny, Splits.model_validate(splits), "somewhere", 2)


def test_splits_that_touch_are_fine(tiny: PreparedDataset) -> None:
    shards = plan_shards(tiny, Splits(train="train[:300]", eval="train[300:]", test="test"), "somewhere", 2)
    assert sum(shard.stop - shard.start for shard in shards) == 800


@pytest.mark.parametrize(
    "slicing", ["validation", "train[:10", "train[:55000]", "train[a:b]", "", "train[500:400]", "all[:50%]"]
)
def test_a_slicing_that_is_none_is_refused_with_examples_of_some(tiny: PreparedDataset, slicing: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_shards(tiny, Splits(train="train[:10]", eval=slicing, test="test"), "somewhere", 2)
    message = str(caught.value)
    assert f"data.splits.eval = {slicing!r} is not a slice of kmnist" in message
    assert "{'train': 600, 'test': 200}" in message or "{'test': 200, 'train': 600}" in message
    assert "'train[90%:]'" in message


ANEW = "compile, submit or schedule it anew, and copy its data there by the commands that this prints."


def test_data_that_changed_since_the_pipeline_was_made_are_rejected(tiny: PreparedDataset, tmp_path: Path) -> None:
    changed = prepare_tiny(tmp_path / "datasets", train=40, test=20, seed=1)
    stale = dataclasses.replace(changed, fingerprint=tiny.fingerprint)
    with pytest.raises(DataRejected, match=re.escape("has changed since this pipeline was made")) as caught:
        generate(stale, tmp_path, train="train[:30]", eval="train[30:]")
    assert tiny.fingerprint in str(caught.value) and changed.fingerprint in str(caught.value)
    assert str(caught.value).endswith(ANEW)
    assert files(tmp_path / "examples") == {}


def test_data_that_were_not_copied_to_a_cluster_cannot_be_prepared_there(tiny: PreparedDataset, tmp_path: Path) -> None:
    whole = dataclasses.replace(tiny, spans={1: tiny, 2: dataclasses.replace(tiny, version="1.0.0")})
    for dataset, wanted in ((dataclasses.replace(tiny, data_dir=tmp_path), "kmnist:3.0.1"), (whole, "span_2:1.0.0")):
        with pytest.raises(NotPrepared, match=f"dataset {wanted} is not prepared in ") as caught:
            generate(dataset, tmp_path)
        assert str(caught.value).endswith(ANEW) and "`mnist-tfx data " not in str(caught.value)


def test_classes_may_stand_for_several(tiny: PreparedDataset, tmp_path: Path) -> None:
    names = tiny.class_names
    grouped = tiny.grouped({"odd": names[1::2], "even": names[0::2]})
    assert grouped.class_names == ("odd", "even")
    generate(grouped, tmp_path, train="train[:100]", eval="train[100:200]", test="test")
    plain = [label for _, label in stored(tiny, "test")]
    written = [label for _, label in read_split(tmp_path / "examples", "test")]
    assert written == [0 if label % 2 else 1 for label in plain]


_BOXES = """
import numpy as np
import tensorflow_datasets as tfds

class Boxes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1)),
            "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
            "mask": tfds.features.Image(shape=(None, None, 1)),
            "corners": tfds.features.Sequence(np.int64),
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples([0, 1, 2, 0, 1, 2]), "test": self._generate_examples([-1])}

    def _generate_examples(self, labels):
        for number, label in enumerate(labels):
            image, mask = np.full((8, 8, 1), number, np.uint8), np.zeros((number + 1, 2, 1), np.uint8)
            yield number, {"image": image, "label": label, "mask": mask, "corners": list(range(number))}
"""


def test_other_features_do_not_matter_and_no_label_stays_none(tmp_path: Path) -> None:
    (tmp_path / "boxes.py").write_text(_BOXES)
    boxes = prepare("boxes", tmp_path / "datasets", builder=f"{tmp_path / 'boxes.py'}:Boxes")
    grouped = boxes.grouped({"x": ("a", "b"), "y": ("c",)})
    generate(grouped, tmp_path, train="train[:5]", eval="train[5:]", test="test")
    labels = {split: [label for _, label in read_split(tmp_path / "examples", split)] for split in SPLITS}
    assert sorted(labels["train"] + labels["eval"]) == [0, 0, 0, 0, 1, 1]
    assert labels["test"] == [-1], "TFDS's sign of no label, which the data gate rejects"


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"a": ("o", "ki")}, "su, tsu, na, ha, ma, ya, re, wo in none"),
        ({"a": ("o", "o")}, "o in several, or unknown"),
        ({"a": ("O",)}, "O in several, or unknown"),
    ],
)
def test_groups_must_name_every_class_once(
    groups: dict[str, tuple[str, ...]], words: str, tiny: PreparedDataset
) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        tiny.grouped(groups)


def test_images_are_fitted_as_a_request_s_image_is(tiny: PreparedDataset, tmp_path: Path) -> None:
    generate(tiny, tmp_path, fit_to=(14, 20, 3), train="train[:50]", eval="train[50:60]", test="test[:20]")
    written = [image for image, _ in read_split(tmp_path / "examples", "test")]
    expected = fit_images(tf.constant([image for image, _ in stored(tiny, "test")[:20]]), (14, 20, 3))
    for content, image in zip(written, expected.numpy(), strict=True):
        assert (tf.io.decode_image(content).numpy() == image).all()
