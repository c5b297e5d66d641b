"""Section `beam` as Beam's own arguments, read back by Beam's own parser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.environments import python_sdk_dependencies

from mnist_tfx.components.beam_arguments import beam_arguments, workers_elsewhere
from mnist_tfx.components.settings import BeamSettings
from mnist_tfx.contract.errors import UsageError

DATAFLOW = {
    "runner": "dataflow",
    "project": "p",
    "region": "europe-west4",
    "temp_location": "gs://b/t",
    "image": "i:1",
}


def parsed(component: str = "", **settings: Any) -> dict[str, Any]:
    """What Beam understands."""
    found: dict[str, Any] = PipelineOptions(beam_arguments(BeamSettings(**settings), component)).get_all_options()
    return found


def test_by_default_beam_runs_in_this_process() -> None:
    found = parsed()
    assert found["runner"].endswith("FnApiRunner")
    assert found["sdk_container_image"] == "unused"
    assert (found["direct_running_mode"], found["direct_num_workers"]) == ("in_memory", 1)


@pytest.mark.parametrize(
    ("python", "mode"), [("/opt/venv/bin/python", "multi_processing"), ("/my code/.venv/bin/python", "multi_threading")]
)
def test_several_workers_are_processes_where_beam_can_start_them(
    monkeypatch: pytest.MonkeyPatch, python: str, mode: str
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    found = parsed(workers=3)
    assert (found["direct_running_mode"], found["direct_num_workers"]) == (mode, 3)


def test_arguments_of_ones_own_come_last_and_win() -> None:
    assert parsed(args=("--runner=PrismRunner",))["runner"] == "PrismRunner"


def test_dataflow() -> None:
    found = parsed(**DATAFLOW, workers=4, subnetwork="s", machine_type="n1-standard-4", service_account="a@b")
    assert (found["runner"], found["project"], found["region"]) == ("DataflowRunner", "p", "europe-west4")
    assert (found["temp_location"], found["sdk_container_image"]) == ("gs://b/t", "i:1")
    assert (found["max_num_workers"], found["machine_type"]) == (4, "n1-standard-4")
    assert (found["subnetwork"], found["use_public_ips"], found["service_account_email"]) == ("s", False, "a@b")


def test_flink_with_containers_and_spark_with_a_worker_pool() -> None:
    flink = parsed(runner="flink", job_endpoint="j:1", image="i:1", workers=4)
    assert (flink["runner"], flink["parallelism"], flink["environment_type"]) == ("FlinkRunner", 4, "DOCKER")
    assert (flink["environment_config"], flink["sdk_container_image"]) == ("i:1", "i:1")
    spark = parsed(runner="spark", job_endpoint="j:1", worker_pool="w:2")
    assert (spark["runner"], spark["environment_type"]) == ("SparkRunner", "EXTERNAL")
    assert (spark["environment_config"], spark["job_endpoint"]) == ("w:2", "j:1")
    own = parsed(runner="spark", job_endpoint="j:1", worker_pool="w:2", args=("--experiments=x",))
    assert own["experiments"] == [*spark["experiments"], "x"]


def test_of_a_worker_pool_nothing_is_asked_that_only_the_job_server_s_disk_has(tmp_path: Path) -> None:
    settings = BeamSettings(runner="flink", job_endpoint="j:1", worker_pool="w:2")
    assert python_sdk_dependencies(PipelineOptions(beam_arguments(settings)), str(tmp_path)) == []


def test_components_that_are_not_named_run_directly() -> None:
    settings = {**DATAFLOW, "components": ("Evaluator",), "args": ("--experiments=x",)}
    assert parsed("Evaluator", **settings)["runner"] == "DataflowRunner"
    assert parsed("DataGate", **settings) == parsed()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runner": "dataflow"}, "needs beam.project and beam.region and beam.temp_location"),
        ({**DATAFLOW, "image": ""}, "needs beam.image (a container image with this code), or beam.setup_file"),
        ({"runner": "flink"}, "beam.runner = 'flink' needs beam.job_endpoint"),
        ({"runner": "spark", "job_endpoint": "j:1"}, "needs beam.image"),
    ],
)
def test_what_a_runner_lacks_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        beam_arguments(BeamSettings(**settings))
    assert message in str(caught.value)


def test_which_workers_read_other_files_than_this_machine() -> None:
    elsewhere = ({"runner": "flink", "job_endpoint": "f:1", "worker_pool": "w:1"}, DATAFLOW)
    assert all(workers_elsewhere(beam_arguments(BeamSettings(**settings))) for settings in elsewhere)
    here = (BeamSettings(), BeamSettings(workers=3), BeamSettings(**DATAFLOW, components=("Evaluator",)))
    assert not any(workers_elsewhere(beam_arguments(settings, "DataGate")) for settings in here)
    assert not workers_elsewhere(["--code_version=1"])
