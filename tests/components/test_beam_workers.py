"""Our own Beam code beyond the submitter's process: by the protocol of Flink and Spark, in workers of a pool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.types.standard_artifacts import ExampleAnomalies, Examples, ExampleStatistics, Schema

from mnist_tfx.components.beam_arguments import beam_arguments
from mnist_tfx.components.data_gate.component import DataBlessing
from mnist_tfx.components.data_gate.executor import Executor as DataGate
from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.settings import BeamSettings, Splits
from mnist_tfx.components.tfds_example_gen.component import TfdsExampleGen
from mnist_tfx.components.tfds_example_gen.executor import Executor as ExampleGen
from mnist_tfx.contract.errors import DataRejected
from mnist_tfx.contract.names import SPLITS
from tests.fixtures.beam_cluster import beam_cluster
from tests.fixtures.executors import artifact
from tests.fixtures.tiny_run import SPLIT_SIZES, TinyRun


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("beam")


@pytest.fixture(scope="module")
def elsewhere(logs: Path) -> Iterator[BeamSettings]:
    """A job server and a worker pool."""
    with beam_cluster(logs) as settings:
        yield settings


def context(folder: Path, beam: BeamSettings) -> BaseBeamExecutor.Context:
    return BaseBeamExecutor.Context(beam_arguments(beam), tmp_dir=str(folder / "tmp"), unique_id="1")


def generate(dataset: PreparedDataset, folder: Path, beam: BeamSettings) -> dict[str, bytes]:
    """The files that TfdsExampleGen writes."""
    component = TfdsExampleGen(
        dataset=dataset.name,
        version=dataset.version,
        fingerprint=dataset.fingerprint,
        data_dir=dataset.data_dir,
        splits=Splits(train="train[:480]", eval="train[480:]"),
        shards=3,
    )
    examples = artifact(Examples, folder)
    ExampleGen(context(folder.parent, beam)).Do({}, {"examples": [examples]}, component.exec_properties)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_examples_are_the_same_bytes_wherever_they_are_written(
    tiny: PreparedDataset, tmp_path: Path, elsewhere: BeamSettings, logs: Path
) -> None:
    here = generate(tiny, tmp_path / "here", BeamSettings())
    there = generate(tiny, tmp_path / "there", elsewhere)
    assert len(here) == 9 and there == here
    assert "Starting worker" in (logs / "worker_pool_main.log").read_text()


def gate(run: TinyRun, folder: Path, beam: BeamSettings, image_shape: list[int]) -> Artifact:
    """Judges a run's Examples; returns the blessing."""
    inputs = {
        "examples": _of(run, Examples, "TfdsExampleGen", "examples"),
        "statistics": _of(run, ExampleStatistics, "StatisticsGen", "statistics"),
        "schema": _of(run, Schema, "ImportSchemaGen", "schema"),
        "anomalies": _of(run, ExampleAnomalies, "ExampleValidator", "anomalies"),
    }
    blessing = artifact(DataBlessing, folder / "blessing")
    parameters = {
        "dataset": "kmnist",
        "image_shape": json.dumps(image_shape),
        "serving_dir": str(folder / "serving"),
        "drift_reference": "live",
    }
    given = {key: [each] for key, each in inputs.items()}
    DataGate(context(folder, beam)).Do(given, {"blessing": [blessing]}, parameters)
    return blessing


def _of(run: TinyRun, kind: type[Artifact], component: str, key: str) -> Artifact:
    made = kind()
    made.uri = str(run.artifact(component, key))
    if isinstance(made, Examples):
        made.split_names = artifact_utils.encode_split_names(list(SPLITS))
    return made


def test_good_images_pass_the_gate(tiny_run: TinyRun, tmp_path: Path, elsewhere: BeamSettings) -> None:
    blessing = gate(tiny_run, tmp_path, elsewhere, [28, 28, 1])
    assert json.loads(blessing.get_string_custom_property("examples")) == SPLIT_SIZES


def test_what_workers_find_reaches_the_gate(tiny_run: TinyRun, tmp_path: Path, elsewhere: BeamSettings) -> None:
    with pytest.raises(DataRejected) as caught:
        gate(tiny_run, tmp_path, elsewhere, [32, 32, 1])
    for split, count in SPLIT_SIZES.items():
        assert f"split {split}, feature image: " in str(caught.value)
        assert sum(int(words.split()[0]) for words in _findings(str(caught.value), split)) == count


def _findings(message: str, split: str) -> list[str]:
    start = f"  split {split}, feature image: "
    return [line.removeprefix(start) for line in message.splitlines() if line.startswith(start)]
