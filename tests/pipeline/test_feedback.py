"""Feedback: requests that a server logged are written to be labelled, and come back as a span."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mnist_tfx.components.datasets.prepared import load_prepared
from mnist_tfx.components.datasets.spans import added_spans, with_newest_spans
from mnist_tfx.pipeline.feedback import read_labels
from mnist_tfx.pipeline.home import Home
from mnist_tfx.serving.client import Client, Predictions
from mnist_tfx.serving.server.config import ServerOptions
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.new_images import CLASS_NAMES
from tests.fixtures.tiny_dataset import draw_examples
from tests.fixtures.tiny_run import TinyRun
from tests.serving.conftest import running

COUNT = 40


@dataclass(frozen=True)
class Logged:
    """A home whose model was asked, with its log, and what it answered."""

    home: Home
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    answers: Predictions

    def feedback(self, *options: str | Path) -> Answer:
        return mnist_tfx("feedback", "kmnist", *options, "--home", self.home.root)


@pytest.fixture(scope="module")
def logged(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    home = Home(tmp_path_factory.mktemp("logged"))
    shutil.copytree(tiny_run.home.datasets / "kmnist", home.datasets / "kmnist")
    config, prefix = home.root / "models.config", home.requests("kmnist")
    config.write_text(
        f'model_config_list {{ config {{ name: "kmnist" base_path: "{tiny_run.home.serving("kmnist")}" '
        'model_platform: "tensorflow" logging_config { log_collector_config { type: "tfrecord" '
        f'filename_prefix: "{prefix}" }} sampling_config {{ sampling_rate: 1.0 }} }} }} }}'
    )
    images, labels = draw_examples(COUNT, 2000)
    with (
        running(ServerOptions(port=0, rest_api_port=-1, model_config_file=str(config))) as one,
        Client(f"127.0.0.1:{one.server.grpc_port}", model="kmnist") as client,
    ):
        answers = client.predict(images)
        buffer = io.BytesIO()
        Image.fromarray(images[0]).save(buffer, "PNG")  # the same image once more, as a file
        client.classify(buffer.getvalue())
    yield Logged(home, images, labels, answers)


def test_logged_images_are_exported_once_each_with_what_was_answered(logged: Logged, tmp_path: Path) -> None:
    answer = logged.feedback("--export", tmp_path / "all", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["written"] == COUNT
    with open(tmp_path / "all" / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    told = {row["id"]: row for row in rows}
    by_pixels = {np.asarray(Image.open(path)).tobytes(): path.stem for path in (tmp_path / "all").glob("*.png")}
    assert len(told) == len(by_pixels) == COUNT
    for image, label, probability in zip(
        logged.images, logged.answers.labels, logged.answers.probabilities.max(axis=1), strict=True
    ):
        row = told[by_pixels[image.tobytes()]]
        assert (row["predicted"], row["label"]) == (label, "")
        assert float(row["probability"]) == pytest.approx(probability, abs=1e-4)
    assert [row["probability"] for row in rows] == sorted(row["probability"] for row in rows), "least certain first"
    assert "is there already" in logged.feedback("--export", tmp_path / "all").err
    answer = logged.feedback("--export", tmp_path / "few", "--limit", "3")
    assert len(list((tmp_path / "few").glob("*.png"))) == 3 and "3 of 40" in answer.out


def labels_of(logged: Logged, folder: Path) -> dict[str, str]:
    """The classes of the images in an export, by id."""
    label_of = {image.tobytes(): CLASS_NAMES[label] for image, label in zip(logged.images, logged.labels, strict=True)}
    return {path.stem: label_of[np.asarray(Image.open(path)).tobytes()] for path in sorted(folder.glob("*.png"))}


def test_what_was_labelled_becomes_a_span_without_split_test(logged: Logged, tmp_path: Path) -> None:
    assert logged.feedback("--export", tmp_path).code == 0
    ids = dict(list(labels_of(logged, tmp_path).items())[:30])
    (tmp_path / f"{next(iter(ids))}.png").unlink()  # it is still in the log
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\n" + "".join(f"{name},{label}\n" for name, label in ids.items()) + f"{'0' * 16},\n")
    answer = logged.feedback("--labels", labels, "--json")
    assert answer.code == 0, answer.err
    splits = json.loads(answer.out)["splits"]
    assert sum(splits.values()) == 30 and splits["test"] == 0
    dataset = load_prepared("kmnist", None, logged.home.datasets)
    assert added_spans(dataset) == [2] and with_newest_spans(dataset, "all").spans[2].class_names == CLASS_NAMES


def test_a_part_of_what_was_labelled_goes_to_split_test_if_asked(
    logged: Logged, tiny_run: TinyRun, tmp_path: Path
) -> None:
    assert logged.feedback("--export", tmp_path).code == 0
    labels = tmp_path / "labels.csv"
    rows = [f"{name},{label}\n" for name, label in labels_of(logged, tmp_path).items()]
    labels.write_text("id,label\n" + "".join(rows))
    elsewhere = replace(logged, home=Home(tmp_path / "home"))  # where no other test has added them
    shutil.copytree(tiny_run.home.datasets / "kmnist", elsewhere.home.datasets / "kmnist")
    answer = elsewhere.feedback("--labels", labels, "--test", "--json")
    assert answer.code == 0, answer.err
    splits = json.loads(answer.out)["splits"]
    assert sum(splits.values()) == COUNT and 0 < splits["test"] < COUNT / 4


@pytest.mark.parametrize("separator", [",", ";"])
def test_labels_are_read_with_the_separator_that_a_spreadsheet_writes(tmp_path: Path, separator: str) -> None:
    rows = [("id", "label", "predicted"), ("0123456789abcdef", "o", "ki"), ("f" * 16, "", "o")]
    (tmp_path / "labels.csv").write_text("".join(f"{separator.join(row)}\n" for row in rows), encoding="utf-8-sig")
    assert read_labels(tmp_path / "labels.csv") == {"0123456789abcdef": "o"}


def test_an_id_may_come_twice_with_one_label(tmp_path: Path) -> None:
    """As where tables were put together of which one is not filled in."""
    (tmp_path / "labels.csv").write_text("id,label\n0123456789abcdef,o\n0123456789abcdef,o\n0123456789abcdef,\n")
    assert read_labels(tmp_path / "labels.csv") == {"0123456789abcdef": "o"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,label\n../../etc/passwd,o\n", "it must be 16 hexadecimal digits"),
        ("id,label\n0123456789abcdef,\n", "no row has a label"),
        ("id,label\n0123456789abcdef,o\n0123456789abcdef,ki\n", "has the labels 'o' and 'ki'"),
        ("id,label\n0123456789abcdef,o\n", "neither beside the CSV file nor in the logs"),
        ("file,class\na.png,o\n", "must have the columns id and label"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(logged: Logged, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "labels.csv").write_text(content)
    answer = logged.feedback("--labels", tmp_path / "labels.csv")
    assert answer.code == 2 and words in answer.err


def test_where_nothing_was_logged_it_is_told_how_to(logged: Logged, tmp_path: Path) -> None:
    answer = logged.feedback("--export", tmp_path / "x", "--logs", tmp_path / "nowhere")
    assert answer.code == 2 and "there is no request log" in answer.err and "--log-requests" in answer.err
