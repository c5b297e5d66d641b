"""New data come in: a span is added, and a run on it begins with the served model and is judged on old and new."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.trainer.run_fn import TRAINING_LOG
from mnist_tfx.contract.names import IMAGES, PROBABILITIES
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.runs.store import load_run
from tests.fixtures.command import mnist_tfx
from tests.fixtures.new_images import write_new_images
from tests.fixtures.tiny_run import TinyRun, decode, read_examples, run_tiny

WARM = ("--set", "training.warm_start=true", "--set", "training.epochs=6")


@dataclass(frozen=True)
class Retrained:
    """A home with the tiny run's live model, to whose data inverted images were added, and the run on both."""

    run: TinyRun
    live: str  # the version that was served before

    def probabilities(self, version: str, images: list[bytes]) -> np.ndarray:
        model = tf.saved_model.load(str(self.run.home.serving("kmnist") / version))
        return np.asarray(model.signatures[IMAGES](tf.constant(decode(images)))[PROBABILITIES])


@pytest.fixture(scope="module")
def retrained(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    home = Home(tmp_path_factory.mktemp("retrained"))
    for folder in ("datasets/kmnist", "serving"):
        shutil.copytree(tiny_run.home.root / folder, home.root / folder)
    [live] = tiny_run.versions()
    # In splits of their own, so that classes have the shares that they had: the data gate looks at these.
    for number, (split, count) in enumerate({"train": 300, "val": 50, "test": 50}.items()):
        write_new_images(home.root / "new" / split, count, seed=number, inverted=True)
    added = mnist_tfx("data", "add", "--dataset", "kmnist", home.root / "new", "--home", home.root, "--json")
    assert added.code == 0, added.err
    assert json.loads(added.out)["span"] == 2
    answer = run_tiny(home.root, tiny_run.recipe_file, *WARM, "--set", "min_span_accuracy=0.3")
    assert answer.code == 0, answer.err
    return Retrained(TinyRun(home, tiny_run.recipe_file, answer), live)


def test_a_run_is_judged_on_each_span_and_its_figures_are_right(retrained: Retrained) -> None:
    outcome = retrained.run.answer.outcome
    examples = [
        (
            each.features.feature["span"].int64_list.value[0],
            each.features.feature["label"].int64_list.value[0],
            each.features.feature["image"].bytes_list.value[0],
        )
        for each in read_examples(retrained.run.examples, "test")
    ]
    assert [span["number"] for span in outcome["spans"]] == [1, 2]
    for told in outcome["spans"]:
        labels, images = zip(*(each[1:] for each in examples if each[0] == told["number"]), strict=True)
        for version, key in ((outcome["pushed_version"], "accuracy"), (retrained.live, "baseline_accuracy")):
            predicted = retrained.probabilities(version, list(images)).argmax(axis=1)
            assert told[key] == pytest.approx((predicted == np.array(labels)).mean(), abs=1e-6)
        assert told["examples"] == len(labels)
    assert outcome["spans"][1]["accuracy"] > outcome["spans"][1]["baseline_accuracy"] + 0.3, "it learned the new"


def test_lineage_report_and_stderr_tell_the_spans(retrained: Retrained) -> None:
    run = load_run(retrained.run.home.metadata_db, retrained.run.run_id)
    examples, base = run.artifact("TfdsExampleGen", "examples"), run.artifact("WarmStart", "base_model")
    assert examples and json.loads(str(examples.properties["spans"])) == {"1": "3.0.1", "2": "1.0.0"}
    assert base and base.properties["version"] == retrained.live
    assert "of spans 1, 2" in retrained.run.answer.err and f"from version {retrained.live}" in retrained.run.answer.err
    report = Path(retrained.run.answer.outcome["report"]).read_text()
    assert "By span of the data" in report and "beginning with the served model" in report


def test_the_training_began_with_the_served_weights(retrained: Retrained, tiny_run: TinyRun) -> None:
    model = retrained.run.artifact("Trainer", "model")
    log: dict[str, Any] = json.loads((model / TRAINING_LOG).read_text())
    assert "with the served model's weights" in log["warm_start"]
    fresh = json.loads((tiny_run.artifact("Trainer", "model") / TRAINING_LOG).read_text())
    assert log["history"][0]["accuracy"] > fresh["history"][0]["accuracy"]
    assert read_metadata(str(retrained.run.model))["base_weights"]


def test_a_second_run_begins_with_the_same_weights_and_is_cached(retrained: Retrained) -> None:
    again = retrained.run.again(*WARM, "--set", "min_span_accuracy=0.3")
    assert again.code == 0
    ran = [each["id"] for each in again.outcome["components"] if not each["cached"]]
    assert ran == ["DataGate", "Report"], "the live model's data are others now: these"


def test_each_bound_on_a_span_is_kept_or_the_model_is_not_pushed(retrained: Retrained) -> None:
    before = retrained.run.versions()
    strict = ("--set", "min_span_accuracy=0.999", "--set", "max_first_span_accuracy_drop=0.0")
    answer = retrained.run.again(*WARM, "--set", "training.epochs=1", "--set", "training.seed=5", *strict)
    assert answer.code == 4
    for bound in ("accuracy span 2: ", "accuracy span 1: drop against the baseline "):
        assert any(words.startswith(bound) for words in answer.outcome["broken_bounds"]), bound
    assert retrained.run.versions() == before


@pytest.mark.slow
def test_mnist_turned_by_20_degrees_is_learned_and_the_old_kept(tmp_path: Path) -> None:
    """2,000 turned images of split train and 1,000 of split test, from a served model's weights."""
    first = mnist_tfx("run", "--dataset", "mnist", "--home", tmp_path, "--json")
    assert first.code == 0, first.err
    for split, count in (("train", 2000), ("test", 1000)):
        write_turned(tmp_path / "turned" / split, tmp_path / "datasets", split, count)
    added = mnist_tfx("data", "add", "--dataset", "mnist", tmp_path / "turned", "--home", tmp_path)
    assert added.code == 0 and "3,000 images of 3,000 files" in added.out, added.err
    options = ("--set", "training.warm_start=true", "--set", "training.epochs=8", "--set", "min_span_accuracy=0.98")
    answer = mnist_tfx("run", "--dataset", "mnist", "--home", tmp_path, "--json", *options)
    old, new = answer.outcome["spans"]
    for name, span in (("old test split", old), ("turned by 20 degrees", new)):
        print(
            f"{name}: {span['baseline_accuracy']:.4f} before, {span['accuracy']:.4f} after, {span['examples']} images"
        )
    assert answer.code == 0, answer.err
    assert answer.outcome["pushed_version"] and (old["examples"], new["examples"]) == (10_000, 1_000)
    assert old["accuracy"] >= old["baseline_accuracy"] - 0.002
    assert new["accuracy"] > new["baseline_accuracy"]


def write_turned(folder: Path, data_dir: Path, split: str, count: int) -> None:
    """The first images of a split of MNIST, turned by 20 degrees, as PNG files in folders by class."""
    data = tfds.load("mnist", data_dir=data_dir, split=f"{split}[:{count}]", download=False)
    for number, example in enumerate(tfds.as_numpy(data)):
        place = folder / str(example["label"])
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(example["image"].squeeze())
        image.rotate(20, Image.Resampling.BILINEAR).save(place / f"{number:05d}.png")
