"""The infra validator: real servers in fresh processes, models that serve and models that do not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from mnist_tfx.components.infra_validator import executor, model_server
from mnist_tfx.components.infra_validator.checks import Check, Outputs, answer_checks, latency_check
from mnist_tfx.components.infra_validator.local_server import EarlyStart, foreign_server, local_server
from mnist_tfx.components.infra_validator.model_server import ModelServer
from mnist_tfx.components.infra_validator.report import failed_checks, read_report
from mnist_tfx.components.infra_validator.requests import Request
from mnist_tfx.components.settings import InfraSettings
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.pipeline.dag import Paths, create_pipeline
from mnist_tfx.pipeline.run_recipe import _Planned
from tests.fixtures.compiled import DESCRIBED
from tests.fixtures.infra_validation import blessed, save_python_inside, validate
from tests.fixtures.server_process import CHECKOUT
from tests.fixtures.tiny_run import TinyRun, tiny_recipe_of

SIGNATURES = ["serving_default", "images", "encoded_images"]
WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"


def _write_program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def test_a_model_that_serves_is_blessed_by_checks_of_every_signature(tiny_run: TinyRun) -> None:
    uri = tiny_run.artifact("InfraValidator", "blessing")
    report = read_report(str(uri))
    names = [check["name"] for check in report["checks"]]
    assert all(check["passed"] for check in report["checks"]) and failed_checks(str(uri)) == ()
    for signature in SIGNATURES:
        assert len([name for name in names if name.startswith(f"signature {signature!r}")]) == 6
    for wanted in ("time until", "latency", "memory"):
        assert [name for name in names if name.startswith(wanted)], wanted
    assert len(report["latency_ms"]) == 100 and min(report["latency_ms"]) > 0
    assert (uri / "INFRA_BLESSED").exists()


def test_the_pushed_model_is_the_trainers_with_warmup_records(tiny_run: TinyRun) -> None:
    pushed = tiny_run.home.serving("kmnist") / tiny_run.versions()[-1]
    assert (pushed / "saved_model.pb").read_bytes() == (tiny_run.model / "saved_model.pb").read_bytes()
    records = [
        prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        for record in tf.data.TFRecordDataset(str(pushed / WARMUP)).as_numpy_iterator()
    ]
    assert {record.model_spec.name for record in records} == {"kmnist"}
    sizes = [
        (record.model_spec.signature_name, tensor.tensor_shape.dim[0].size)
        for record in records
        for tensor in record.inputs.values()
    ]
    assert sizes == [(signature, size) for signature in SIGNATURES for size in (1, 32)]


def test_a_model_that_works_only_where_it_was_made_is_not_blessed(tiny_run: TinyRun, tmp_path: Path) -> None:
    blessing = validate(tmp_path, tiny_run, save_python_inside(tmp_path / "model"))
    [failure] = failed_checks(blessing.uri)
    assert not blessed(blessing) and (Path(blessing.uri) / "INFRA_NOT_BLESSED").exists()
    assert failure.startswith("loading the model: errors: 1, allowed at most 0 (version 1 is END"), failure


def test_limits_that_are_not_kept_are_named_with_the_measured_value(tiny_run: TinyRun, tmp_path: Path) -> None:
    blessing = validate(tmp_path, tiny_run, tiny_run.model, max_latency_ms=1e-6, max_memory_mib=1.0)
    latency, memory = failed_checks(blessing.uri)
    assert not blessed(blessing)
    assert latency.startswith("latency of one image, 99th percentile: ") and "allowed at most 1e-06 ms" in latency
    assert memory.startswith("memory of the model server: ") and "allowed at most 1 MiB" in memory


def test_a_long_path_of_the_folder_for_temporary_files_is_no_flaw_of_the_model(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert blessed(validate(tmp_path, tiny_run, tiny_run.model))


def test_a_model_that_is_not_available_in_time_is_not_blessed(tiny_run: TinyRun, tmp_path: Path) -> None:
    blessing = validate(tmp_path, tiny_run, tiny_run.model, max_load_seconds=0.05)
    [failure] = failed_checks(blessing.uri)
    assert not blessed(blessing)
    assert failure.startswith("time until the model is AVAILABLE: ") and "allowed at most 0.05 s" in failure


@pytest.mark.parametrize(
    ("number", "before", "words"),
    [
        (signal.SIGKILL, True, r"the model server ended with status -9"),
        (signal.SIGSTOP, True, r"Deadline Exceeded"),
        (signal.SIGKILL, False, r"the model server ended with status -9"),  # and its memory is to be measured
    ],
    ids=["killed", "stopped", "killed-after-the-last-answer"],
)
def test_a_server_that_dies_or_hangs_while_latency_is_measured_is_a_failed_check(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, before: bool, words: str
) -> None:
    measure = executor._latencies

    def signalled(server: ModelServer, request: Request) -> list[float]:
        alive = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
        [process] = [each for each in alive if "mnist_tfx.serving.server" in each.cmdline()]
        if before:
            process.send_signal(number)
            return measure(server, request)
        seconds = measure(server, request)
        process.send_signal(number)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return seconds

    monkeypatch.setattr(executor, "_latencies", signalled)
    monkeypatch.setattr(model_server, "DEFAULT_TIMEOUT", 5.0)
    blessing = validate(tmp_path, tiny_run, tiny_run.model)
    [failure] = failed_checks(blessing.uri)
    assert not blessed(blessing) and (Path(blessing.uri) / "INFRA_NOT_BLESSED").exists()
    assert re.match(rf"requests of one image: errors: 1, allowed at most 0 \(.*{words}", failure), failure


@pytest.fixture
def sleeping_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in TF Serving's place that knows nothing of us, and never ends by itself."""
    _write_program(tmp_path / "tensorflow_model_server", "exec sleep 600")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


ENTER_TWO_SERVERS = """
import time
from mnist_tfx.components.infra_validator.local_server import local_server
from mnist_tfx.components.settings import InfraSettings
with local_server(InfraSettings(engine="python"), "a"), local_server(InfraSettings(), "b"):
    print("entered", flush=True)
    time.sleep(600)
"""


@pytest.mark.usefixtures("sleeping_server")
def test_no_server_outlives_the_process_that_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-c", ENTER_TWO_SERVERS]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "entered\n"
        servers = psutil.Process(process.pid).children()
        process.kill()
        _gone, alive = psutil.wait_procs(servers, timeout=10)
    left = [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]  # nobody may be there to reap it
    for each in left:
        each.kill()
    assert len(servers) == 2 and left == []


def test_an_engine_that_is_not_there_says_nothing_of_the_model(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError, match="tensorflow_model_server, which is not on the PATH"):
        validate(tmp_path, tiny_run, tiny_run.model, engine="tensorflow_model_server")


def test_an_engine_that_does_not_run_says_nothing_of_the_model(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_program(tmp_path / "tensorflow_model_server", "echo a library is missing; exit 3")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError, match=r"status 3: a library is missing.*infra\.engine"):
        validate(tmp_path, tiny_run, tiny_run.model, engine="auto")


def _sleeping() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.usefixtures("sleeping_server")
def test_a_server_that_was_started_early_is_the_one_asked_for() -> None:
    before = _sleeping()
    with EarlyStart(InfraSettings(), "kmnist") as early:
        early.start()
        [server] = [each for each in _sleeping() if each not in before]
        with local_server(InfraSettings(), "kmnist") as given:
            assert given.resident_bytes() and [each for each in _sleeping() if each not in before] == [server]
        assert _sleeping() == before
        with local_server(InfraSettings(), "kmnist"):  # a second one is another
            [second] = [each for each in _sleeping() if each not in before]
            assert second.pid != server.pid
    assert _sleeping() == before


@pytest.mark.usefixtures("sleeping_server")
def test_a_run_starts_early_what_its_pipeline_asks_for_where_the_dataset_has_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, recipe, before = replace(DESCRIBED, name="emnist/balanced"), tiny_recipe_of(), _sleeping()
    place, started = str(tmp_path), list[psutil.Process]()
    pipeline = create_pipeline(recipe, dataset, Paths(place, place, f"{place}/schema.pbtxt", place, place))
    [validator] = [node for node in pipeline.components if node.id == "InfraValidator"]

    def run(*_: object, after: Mapping[str, Callable[[], None]], **__: object) -> None:
        """In the place of the components."""
        after["Trainer"]()
        with local_server(recipe.infra, validator.exec_properties["model_name"]):
            started.extend(each for each in _sleeping() if each not in before)

    monkeypatch.setattr("mnist_tfx.pipeline.running.local_runner.run_pipeline", run)
    _Planned(recipe, dataset, "a-run", tmp_path / "run.log", pipeline).execute()
    assert len(started) == 1 and _sleeping() == before


@pytest.mark.usefixtures("sleeping_server")
def test_a_server_that_was_started_early_and_is_gone_is_started_again() -> None:
    before = _sleeping()
    with EarlyStart(InfraSettings(), "kmnist") as early:
        early.start()
        [server] = [each for each in _sleeping() if each not in before]
        server.kill()
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        with local_server(InfraSettings(), "kmnist") as given:
            assert given.resident_bytes()
    assert _sleeping() == before


@pytest.mark.usefixtures("sleeping_server")
def test_a_server_that_was_started_early_and_not_asked_for_ends_with_the_run() -> None:
    before = _sleeping()
    with pytest.raises(KeyboardInterrupt), EarlyStart(InfraSettings(), "kmnist") as early:
        early.start()
        assert len(_sleeping()) == len(before) + 1
        with local_server(InfraSettings(), "mnist"):  # of another model
            assert len(_sleeping()) == len(before) + 2
        raise KeyboardInterrupt
    assert _sleeping() == before


@pytest.mark.parametrize(
    "settings",
    [{"endpoint": "host:1", "endpoint_for_candidates_only": True}, {"engine": "tensorflow_model_server"}],
    ids=["a staging server's", "one that is not there"],
)
def test_nothing_is_started_early_where_no_local_server_is_to_be_had(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = _sleeping()
    with EarlyStart(InfraSettings.model_validate(settings), "kmnist") as early:
        early.start()
        assert _sleeping() == before


def test_which_model_server_would_load_the_model_is_in_the_cache_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = InfraSettings(endpoint="host:1", endpoint_for_candidates_only=True)
    ours = InfraSettings(engine="python")
    monkeypatch.setenv("PATH", str(tmp_path))
    binary = tmp_path / "tensorflow_model_server"
    seen = [foreign_server(InfraSettings())]
    for version in ("# 1", "# another"):
        _write_program(binary, version)
        seen.append(foreign_server(InfraSettings()))
        assert foreign_server(endpoint) == foreign_server(ours) == ""
    assert seen[0] == "" and len(set(seen)) == 3


@pytest.fixture
def restored(tiny_run: TinyRun) -> Iterator[TinyRun]:
    """The tiny run, whose versions are as before after the test."""
    before = tiny_run.versions()
    yield tiny_run
    assert tiny_run.versions() == before


def test_a_run_whose_model_fails_a_check_exits_with_4_and_pushes_nothing(restored: TinyRun) -> None:
    answer = restored.again("--set", "infra.max_latency_ms=0.000001")
    assert answer.code == 4
    assert "latency of one image, 99th percentile" in answer.err and "[infra]" in answer.err
    assert answer.outcome["pushed_version"] is None and len(answer.outcome["failed_checks"]) == 1


def _answer() -> Outputs:
    return {
        "probabilities": np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32),
        "classes": np.array([0, 2]),
        "labels": np.array([b"a", b"c"], object),
    }


def _failed(**changes: Any) -> list[Check]:
    return [check for check in answer_checks("images", _answer() | changes, _answer()) if not check.passed]


def test_equal_answers_pass() -> None:
    assert _failed() == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"probabilities": np.array([[0.7, 0.2, 0.1]], np.float32)}, "of another shape"),
        ({"more": np.zeros(2)}, "extra"),
        ({"classes": np.array([b"0", b"2"], object)}, "type"),
        ({"classes": np.array([0, 3])}, "not the likeliest"),
        ({"classes": np.array([0, -1])}, "not the likeliest"),
        ({"probabilities": np.array([[0.7, 0.2, 0.1], [np.nan, 0.1, 0.8]], np.float32)}, "not finite"),
        ({"probabilities": np.array([[0.6999, 0.2001, 0.1], [0.1, 0.1, 0.8]], np.float32)}, "largest difference"),
        ({"classes": np.array([1, 2])}, "not the likeliest"),
        ({"labels": np.array([b"a", b"b"], object)}, "do not name the class"),
    ],
)
def test_each_flaw_of_an_answer_fails_its_check(changes: dict[str, Any], name: str) -> None:
    [failed] = _failed(**changes)
    assert name in failed.name and failed.measured > failed.limit


def test_probabilities_that_do_not_sum_to_1_fail() -> None:
    wrong = _answer() | {"probabilities": _answer()["probabilities"] / 2}
    [failed] = [check for check in answer_checks("images", wrong, wrong) if not check.passed]
    assert "sum" in failed.name and failed.measured == pytest.approx(0.5)


def test_one_request_in_a_hundred_may_be_slow_and_two_may_not() -> None:
    settings = InfraSettings(max_latency_ms=50.0)
    assert latency_check(settings, [0.001] * 99 + [0.1]).passed
    failed = latency_check(settings, [0.001] * 98 + [0.1] * 2)
    assert not failed.passed and failed.measured == pytest.approx(100)


def test_a_check_tells_measured_value_limit_unit_and_the_servers_words() -> None:
    check = Check("latency", 12.34, 10, "ms", "slow")
    assert not check.passed and str(check) == "latency: 12.34 ms, allowed at most 10 ms (slow)"
    assert replace(check, measured=10).passed and not replace(check, measured=float("nan")).passed
