"""The data gate: every kind of bad data is found, told with split, feature, reason and remedy, and good data pass.

StatisticsGen, ImportSchemaGen, ExampleValidator and DataGate really run, over Examples made by hand. One set of
Examples holds all kinds of bad data, so that Beam is paid for once.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tfx.components.example_validator.executor import Executor as ExampleValidator
from tfx.components.schema_gen.import_schema_gen.executor import Executor as ImportSchemaGen
from tfx.components.statistics_gen.executor import Executor as StatisticsGen
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import ExampleAnomalies, Examples, ExampleStatistics, Schema

from mnist_tfx.components.data_gate.component import DataBlessing
from mnist_tfx.components.data_gate.executor import REPORT, Driver
from mnist_tfx.components.data_gate.executor import Executor as DataGate
from mnist_tfx.contract.errors import DataRejected
from mnist_tfx.contract.names import DATA_STATISTICS_PATH
from mnist_tfx.pipeline.projects import shipped
from tests.fixtures.executors import artifact, context
from tests.fixtures.tiny_dataset import draw_examples
from tests.fixtures.tiny_run import TinyRun

SHAPE = (28, 28, 1)
Row = tuple[list[bytes], list[int]]  # the values of features `image` and `label`; none: the feature is absent


def png(image: np.ndarray) -> bytes:
    """A grayscale image, uint8 [height, width], as PNG."""
    return bytes(tf.io.encode_png(image[..., np.newaxis]).numpy())


def good(count: int = 120, seed: int = 0) -> list[Row]:
    """Examples as they should be, every class equally often."""
    images, labels = draw_examples(count, seed)
    return [([png(image)], [int(label)]) for image, label in zip(images, labels, strict=True)]


def changed(rows: list[Row], changes: Mapping[int, Callable[[list[bytes], list[int]], Row]]) -> list[Row]:
    """`rows`, of which those with these numbers are changed."""
    return [changes[number](*row) if number in changes else row for number, row in enumerate(rows)]


def with_shares(more: int, less: int, moved: int) -> list[Row]:
    """Good examples, of which `moved` of class `less` are labeled `more`."""
    rows, left = [], moved
    for images, labels in good():
        if labels == [less] and left:
            labels, left = [more], left - 1
        rows.append((images, labels))
    return rows


def cut(images: list[bytes], labels: list[int]) -> Row:
    """A valid signature and header, but half of the pixels are gone: TFDV takes it for a good PNG."""
    return [images[0][: len(images[0]) // 2]], labels


def write_examples(folder: Path, splits: dict[str, Iterable[Row]], files: int = 1) -> Examples:
    """Writes splits as TfdsExampleGen would."""
    for split, rows in splits.items():
        (folder / f"Split-{split}").mkdir(parents=True)
        listed = list(rows)
        for number in range(files):
            path = str(folder / f"Split-{split}" / f"data_tfrecord-{number:05d}-of-{files:05d}.gz")
            with tf.io.TFRecordWriter(path, "GZIP") as writer:
                for images, labels in listed[number::files]:
                    example = tf.train.Example()
                    if images:
                        example.features.feature["image"].bytes_list.value[:] = images
                    if labels:
                        example.features.feature["label"].int64_list.value[:] = labels
                    writer.write(example.SerializeToString())
    examples = artifact(Examples, folder)
    examples.split_names = artifact_utils.encode_split_names(list(splits))
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    return examples


@dataclass
class Judged:
    """Examples with what StatisticsGen and ExampleValidator say of them, ready for the gate."""

    folder: Path
    examples: Examples
    schema: Schema
    statistics: ExampleStatistics
    anomalies: ExampleAnomalies
    runs: int = 0

    def gate(self, serving: Path, drift_reference: str = "live") -> DataBlessing:
        """Runs the gate beside the models in a folder."""
        inputs = {name: [getattr(self, name)] for name in ("examples", "statistics", "schema", "anomalies")}
        self.runs += 1
        blessing = artifact(DataBlessing, self.folder / f"blessing-{self.runs}")
        parameters = {"dataset": "mnist", "image_shape": json.dumps(SHAPE), "serving_dir": str(serving)}
        parameters["drift_reference"] = drift_reference
        DataGate(context(self.folder)).Do(inputs, {"blessing": [blessing]}, parameters)
        return blessing

    def key(self, serving: Path, drift_reference: str = "live") -> str:
        """What the gate's driver adds to the cache key."""
        parameters = {"serving_dir": str(serving), "drift_reference": drift_reference}
        info = ExecutionInfo(input_dict={"statistics": [self.statistics]}, exec_properties=parameters)
        return str(Driver(None).run(info).exec_properties["surroundings"].string_value)

    def go_live(self, serving: Path, version: str) -> None:
        """Leaves a version as the Pusher does: with the statistics of its data."""
        shutil.copytree(self.statistics.uri, serving / version / DATA_STATISTICS_PATH)
        (serving / version / "saved_model.pb").write_text("graph")

    def rejection(self, serving: Path) -> str:
        """What the gate says when it rejects."""
        with pytest.raises(DataRejected) as caught:
            self.gate(serving)
        assert caught.value.exit_code == 3
        assert not list((self.folder / f"blessing-{self.runs}").iterdir())
        return str(caught.value)


def judge(folder: Path, splits: dict[str, Iterable[Row]], files: int = 1) -> Judged:
    """Runs everything before the gate, with the curated schema of MNIST and the pipeline's options."""
    examples = write_examples(folder / "examples", splits, files)
    schema = artifact(Schema, folder / "schema")
    ImportSchemaGen(context(folder)).Do({}, {"schema": [schema]}, {"schema_file": str(shipped("mnist").schema_file)})
    statistics = artifact(ExampleStatistics, folder / "statistics")
    options = tfdv.StatsOptions(enable_semantic_domain_stats=True).to_json()
    StatisticsGen(context(folder)).Do(
        {"examples": [examples], "schema": [schema]}, {"statistics": [statistics]}, {"stats_options_json": options}
    )
    anomalies = artifact(ExampleAnomalies, folder / "anomalies")
    ExampleValidator(context(folder)).Do(
        {"statistics": [statistics], "schema": [schema]}, {"anomalies": [anomalies]}, {}
    )
    return Judged(folder, examples, schema, statistics, anomalies)


BAD = {
    # Skewed, too: 6 of 120 examples moved from class 2 to class 1.
    "unreadable": changed(
        with_shares(more=1, less=2, moved=6),
        {7: cut, 9: cut, 5: lambda images, labels: ([png(np.zeros((28, 27), np.uint8))], labels)},
    ),
    "foreign": changed(
        good(),
        {3: lambda images, labels: ([b"not an image at all"], labels), 4: lambda images, labels: (images, [10])},
    ),
    "absent": changed(good(), {0: lambda images, labels: ([], labels), 1: lambda images, labels: (images, [])}),
    "few": changed(good(60), {0: lambda images, labels: (images, labels * 2)}),
    "lost_class": [row for row in good(150) if row[1] != [9]],
    "empty": [],
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """A good split train, and splits with all kinds of bad data."""
    return judge(tmp_path_factory.mktemp("bad"), {"train": good(seed=1), **BAD})


@pytest.fixture(scope="module")
def findings(bad: Judged) -> list[dict[str, str]]:
    """The rejection's findings, taken apart."""
    message = bad.rejection(bad.folder / "serving")
    headline, _, listed = message.partition("\n")
    found = [
        match.groupdict()
        for match in re.finditer(
            r"  split (?P<split>.+?), feature (?P<feature>.+?): (?P<reason>.+)\n    +remedy: (?P<remedy>.+)", listed
        )
    ]
    assert headline == f"the data gate rejected mnist: {len(found)} anomalies, nothing was trained."
    assert len(listed.splitlines()) == 2 * len(found)
    return found


@pytest.mark.parametrize(
    ("split", "feature", "reason", "remedy"),
    [
        (
            "unreadable",
            "image",
            r"^2 of 120 images in .* cannot be decoded \(the first is record 7\)",
            "replace or remove",
        ),
        ("unreadable", "image", r"^1 of .* are not 28 x 28 x 1 \(record 5 is 28 x 27 x 1\)", "data.image_shape in the"),
        ("train against unreadable", "label", r"Linfty distance .* is 0\.05 ", "in schemas/mnist/schema.pbtxt"),
        (
            "foreign",
            "image",
            r"^1 of 120 images in .* cannot be decoded \(the first is record 3\)",
            "replace or remove",
        ),
        ("foreign", "image", "supported images: 0.99", "correct the data"),  # TFDV's own finding
        ("foreign", "label", "Unexpectedly large value: 10", "schemas/mnist/schema.pbtxt"),
        ("foreign", "label", "no more than 10 unique values but found 11", "one too many"),
        ("absent", "image", "fewer examples than expected", "missing in some or all examples"),
        ("absent", "label", "fewer examples than expected", "missing in some or all examples"),
        ("few", "label", "its value lengths vary", "schemas/mnist/schema.pbtxt"),  # two labels
        ("few", "(whole split)", "60", "the split reads nothing, or too little"),
        ("few", "(whole split)", "60", "lower min_examples_count in schemas/mnist/schema.pbtxt (a project's own:"),
        ("lost_class", "label", "at least 10 unique values but found only 9", "a class is missing"),
        ("train against lost_class", "label", "Linfty distance .* is 0.1 ", "in schemas/mnist/schema.pbtxt"),
        ("empty", "(whole split)", "no examples", "the split reads nothing, or too little"),
    ],
)
def test_bad_data_are_told_with_split_feature_reason_and_remedy(
    findings: list[dict[str, str]], split: str, feature: str, reason: str, remedy: str
) -> None:
    of_feature = [found for found in findings if (found["split"], found["feature"]) == (split, feature)]
    assert of_feature, f"none of {findings}"
    assert any(re.search(reason, found["reason"]) and remedy in found["remedy"] for found in of_feature), of_feature


def test_the_good_split_is_not_accused(findings: list[dict[str, str]]) -> None:
    assert "train" not in {found["split"] for found in findings}


def test_every_finding_comes_once(findings: list[dict[str, str]]) -> None:
    assert len({tuple(found.values()) for found in findings}) == len(findings)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Good data, in two files."""
    return judge(tmp_path_factory.mktemp("sound"), {"train": good(seed=1)}, files=2)


@pytest.fixture(scope="module")
def drifted(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Data that are good by themselves, and differ from `sound`."""
    return judge(tmp_path_factory.mktemp("drifted"), {"train": with_shares(more=1, less=2, moved=6)})


def report_of(blessing: DataBlessing) -> dict[str, Any]:
    return dict(json.loads((Path(blessing.uri) / REPORT).read_text()))


def test_good_data_pass_and_are_compared_with_those_of_the_live_model(sound: Judged, tmp_path: Path) -> None:
    blessing = sound.gate(tmp_path)
    report = report_of(blessing)
    assert report == {
        "dataset": "mnist",
        "examples": {"train": 120},
        "compared_with_live": False,
        "distances": [],
    }
    assert json.loads(blessing.get_string_custom_property("examples")) == report["examples"]
    assert list(tmp_path.iterdir()) == []  # passing makes nothing a reference: that is what a push does

    sound.go_live(tmp_path, "1")
    report = report_of(sound.gate(tmp_path))
    assert report["compared_with_live"] is True
    assert [distance["value"] for distance in report["distances"]] == [0.0]


def test_drift_from_the_live_models_data_is_rejected_however_often_other_data_passed(
    sound: Judged, drifted: Judged, tmp_path: Path
) -> None:
    sound.go_live(tmp_path, "1")
    for _ in range(2):
        message = drifted.rejection(tmp_path)
        assert "1 anomaly, nothing was trained" in message
        assert re.search(r"split train against the live model's data, feature label: .* is 0\.05 ", message)
        assert "To accept the new data as they are: --set data.drift_reference=none." in message
    drifted.gate(tmp_path, "none")
    drifted.rejection(tmp_path)  # accepted once is not accepted for ever: nothing was pushed
    drifted.go_live(tmp_path, "2")
    drifted.gate(tmp_path)
    sound.rejection(tmp_path)
    shutil.rmtree(tmp_path / "2")  # as a rollback does: the data of the version before are the reference again
    sound.gate(tmp_path)


def test_the_key_holds_the_live_models_data_unless_they_are_the_very_same(
    sound: Judged, drifted: Judged, tmp_path: Path
) -> None:
    assert sound.key(tmp_path) == ""
    sound.go_live(tmp_path, "1")
    assert sound.key(tmp_path) == ""  # a repeated run, whose model went live
    of_sound = drifted.key(tmp_path)
    assert of_sound and drifted.key(tmp_path, "none") == ""
    drifted.go_live(tmp_path, "2")
    assert drifted.key(tmp_path) == "" and sound.key(tmp_path) not in ("", of_sound)


def test_a_live_model_from_elsewhere_has_no_data_to_compare_with(sound: Judged, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_text("graph")
    assert report_of(sound.gate(tmp_path))["compared_with_live"] is False


def test_in_the_pipeline_a_model_goes_live_with_what_statistics_gen_measured(tiny_run: TinyRun) -> None:
    [version] = tiny_run.versions()
    live, made = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.pb")}
        for folder in (
            tiny_run.home.serving("kmnist") / version / DATA_STATISTICS_PATH,
            tiny_run.artifact("StatisticsGen", "statistics"),
        )
    )
    assert live == made and len(made) == 3
    assert report_of(artifact(DataBlessing, tiny_run.artifact("DataGate", "blessing")))["examples"] == {
        "train": 480,
        "eval": 120,
        "test": 200,
    }
