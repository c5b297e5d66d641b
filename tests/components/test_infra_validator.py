"""The infra validator: real servers in fresh processes, models that serve and models that do not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model

from components.errors import PipelineError
from components.infra_validator.checks import Check, Outputs, answer_checks
from components.infra_validator.executor import Executor
from components.infra_validator.report import failed_checks, read_report
from components.settings import InfraSettings
from serving.client import Client
from tests.fixtures.executors import artifact, context
from tests.fixtures.server_process import server_processes
from tests.fixtures.tiny_run import TinyRun

SIGNATURES = ["serving_default", "images", "encoded_images"]
WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"


def validate(folder: Path, run: TinyRun, model: Path, **settings: Any) -> InfraBlessing:
    """Runs the executor on a SavedModel with the examples of the tiny run, in our server."""
    candidate = artifact(Model, folder / "candidate")
    shutil.copytree(model, folder / "candidate" / "Format-Serving")
    examples = artifact(Examples, run.examples)
    examples.split_names = artifact_utils.encode_split_names(["train", "eval", "test"])
    blessing = artifact(InfraBlessing, folder / "blessing")
    wanted = InfraSettings.model_validate({"engine": "python", "examples": 4, **settings})
    Executor(context(folder)).Do(
        {"model": [candidate], "examples": [examples]},
        {"blessing": [blessing]},
        {"settings": wanted.model_dump_json(), "model_name": "kmnist"},
    )
    return blessing


def blessed(blessing: InfraBlessing) -> bool:
    return bool(blessing.get_int_custom_property("blessed"))


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


class PythonInside(tf.Module):
    """Answers only in the process that made it: a part of its graph is a Python function."""

    def _answer(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        tenths = tf.py_function(lambda: tf.fill([10], 0.1), [], tf.float32)
        count = tf.shape(batch)[0]
        return {
            "probabilities": tf.ensure_shape(tf.tile(tenths[tf.newaxis], [count, 1]), [None, 10]),
            "classes": tf.zeros([count], tf.int64),
            "labels": tf.fill([count], "a"),
        }

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28, 1], tf.uint8, "images")])
    def images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answer(images)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
    def examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answer(examples)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "encoded_images")])
    def encoded_images(self, encoded_images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answer(encoded_images)


def test_a_model_that_works_only_where_it_was_made_is_not_blessed(tiny_run: TinyRun, tmp_path: Path) -> None:
    module = PythonInside()
    signatures = {
        "serving_default": module.examples,
        "images": module.images,
        "encoded_images": module.encoded_images,
    }
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=signatures)
    blessing = validate(tmp_path, tiny_run, tmp_path / "model")
    [failure] = failed_checks(blessing.uri)
    assert not blessed(blessing) and (Path(blessing.uri) / "INFRA_NOT_BLESSED").exists()
    assert failure.startswith("loading the model: errors: 1, allowed at most 0 (version 1 is END"), failure


def test_limits_that_are_not_kept_are_named_with_the_measured_value(tiny_run: TinyRun, tmp_path: Path) -> None:
    blessing = validate(tmp_path, tiny_run, tiny_run.model, max_latency_ms=1e-6, max_memory_mib=1.0)
    latency, memory = failed_checks(blessing.uri)
    assert not blessed(blessing)
    assert latency.startswith("latency of one image, 99th percentile: ") and "allowed at most 1e-06 ms" in latency
    assert memory.startswith("memory of the model server: ") and "allowed at most 1 MiB" in memory


def test_a_model_that_is_not_available_in_time_is_not_blessed(tiny_run: TinyRun, tmp_path: Path) -> None:
    blessing = validate(tmp_path, tiny_run, tiny_run.model, max_load_seconds=0.05)
    [failure] = failed_checks(blessing.uri)
    assert not blessed(blessing)
    assert failure.startswith("time until the model is AVAILABLE: ") and "allowed at most 0.05 s" in failure


def test_a_staging_server_given_by_its_address_takes_the_candidate(tiny_run: TinyRun, tmp_path: Path) -> None:
    with server_processes("other", tiny_run.home.serving("kmnist"), tmp_path / "log", 1) as [staging]:
        blessing = validate(tmp_path, tiny_run, tiny_run.model, endpoint=staging.address)
        with Client(staging.address, "kmnist") as client:
            assert [status.version for status in client.status()] == [1]
    assert blessed(blessing)
    assert "memory of the model server" not in [check["name"] for check in read_report(blessing.uri)["checks"]]


def test_a_staging_server_that_is_not_there_says_nothing_of_the_model(tiny_run: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"127\.0\.0\.1:1 .*infra\.endpoint"):
        validate(tmp_path, tiny_run, tiny_run.model, endpoint="127.0.0.1:1")


def test_an_engine_that_is_not_there_says_nothing_of_the_model(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError, match="tensorflow_model_server, which is not on the PATH"):
        validate(tmp_path, tiny_run, tiny_run.model, engine="tensorflow_model_server")


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


def test_a_check_tells_measured_value_limit_unit_and_the_servers_words() -> None:
    check = Check("latency", 12.34, 10, "ms", "slow")
    assert not check.passed and str(check) == "latency: 12.34 ms, allowed at most 10 ms (slow)"
    assert replace(check, measured=10).passed and not replace(check, measured=float("nan")).passed
