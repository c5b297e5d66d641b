"""Releases while our own server serves and a client asks: no call fails, and each is answered by the right version."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from mnist_tfx.pipeline.commands.serve import ServingFolder
from mnist_tfx.serving.server.config import ServerOptions
from mnist_tfx.serving.server.main import ModelServer
from tests.fixtures.command import mnist_tfx


def export(folder: Path, version: int) -> None:
    """A model that answers with its version."""
    module = tf.Module()
    module.answer = tf.function(
        lambda x: {"version": tf.fill(tf.shape(x), tf.constant(version, tf.int64))},
        input_signature=[tf.TensorSpec([None], tf.float32, "x")],
    )
    tf.saved_model.save(module, str(folder / str(version)), signatures=module.answer)


class Asking(threading.Thread):
    """Asks one label over and over, and notes which versions answered, each change once."""

    def __init__(self, address: str, label: str) -> None:
        super().__init__()
        self.answered: list[int] = []
        self.errors: list[str] = []
        self._address, self._label, self._stopped = address, label, threading.Event()

    def run(self) -> None:
        request = PredictRequest()
        request.model_spec.name = "mnist"
        request.model_spec.version_label = self._label
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.zeros(1, np.float32)))
        with grpc.insecure_channel(self._address) as channel:
            predict = PredictionServiceStub(channel).Predict
            while not self._stopped.wait(0.005):
                try:
                    response = predict(request, timeout=10)
                except grpc.RpcError as error:
                    self.errors.append(f"{error.code()}: {error.details()}")
                    continue
                [version] = tf.make_ndarray(response.outputs["version"])
                assert version == response.model_spec.version.value
                if self.answered[-1:] != [version]:
                    self.answered.append(int(version))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Versions 1 to 3 of mnist."""
    for version in (1, 2, 3):
        export(tmp_path / "serving" / "mnist", version)
    return tmp_path


@pytest.fixture
def address(home: Path) -> Iterator[str]:
    """What `mnist-tfx serve` starts, with shorter polls."""
    options = ServerOptions(
        port=0,
        file_system_poll_wait_seconds=0.1,
        model_config_file_poll_wait_seconds=0.1,
        allow_version_labels_for_unavailable_models=True,
    )
    server = ModelServer(options, source=ServingFolder(home / "serving").models)
    server.start()
    yield f"127.0.0.1:{server.grpc_port}"
    server.stop(grace_seconds=1)


def test_a_half_copied_canary_is_tried_again_once_it_is_whole(home: Path, address: str) -> None:
    options = ("--home", home, "--address", address, "--timeout", "20")
    assert mnist_tfx("promote", "mnist", "3", *options).code == 0
    shutil.copytree(home / "serving" / "mnist" / "3", home / "serving" / "mnist" / "4")
    variables = home / "serving" / "mnist" / "4" / "variables"
    variables.rename(home / "not_copied_yet")
    for _ in range(2):
        answer = mnist_tfx("canary", "mnist", *options)
        assert answer.code == 1
        assert "cannot load version 4" in answer.err
        time.sleep(0.5)  # the server sees that the file was put back, as it does before a person's next command
    (home / "not_copied_yet").rename(variables)
    answer = mnist_tfx("canary", "mnist", *options)
    assert answer.code == 0, answer.err
    assert f"{address}: serves it" in answer.out


def test_canary_promote_and_rollback_fail_no_call_and_mix_no_versions(home: Path, address: str) -> None:
    def call(*arguments: str) -> None:
        answer = mnist_tfx(*arguments, "--home", home, "--address", address, "--timeout", "20")
        assert answer.code == 0, answer.err
        assert f"{address}: serves it" in answer.out

    call("rollback", "mnist")
    call("promote", "mnist", "2")
    stable = Asking(address, "stable")
    stable.start()
    call("rollback", "mnist", "--to", "3")
    call("promote", "mnist", "2")
    call("canary", "mnist", "1")
    canary = Asking(address, "canary")
    canary.start()
    call("canary", "mnist", "3")
    call("promote", "mnist")
    call("rollback", "mnist")
    stable.stop()
    canary.stop()
    assert (stable.errors, canary.errors) == ([], [])
    assert stable.answered == [2, 3, 2, 3, 2]
    assert canary.answered == [1, 3, 2]


def test_a_canary_that_failed_once_goes_live_when_it_is_mended(home: Path, tmp_path: Path) -> None:
    """The server still tells of the failure when the command looks; it has not looked at the files again yet."""
    options = ServerOptions(
        port=0,
        file_system_poll_wait_seconds=0.5,
        model_config_file_poll_wait_seconds=0.5,
        allow_version_labels_for_unavailable_models=True,
        max_num_load_retries=0,
    )
    server = ModelServer(options, source=ServingFolder(home / "serving").models)
    server.start()
    try:
        address = ("--home", home, "--address", f"127.0.0.1:{server.grpc_port}", "--timeout", "20")
        assert mnist_tfx("promote", "mnist", "2", *address).code == 0
        for command, version in (("canary", 4), ("promote", 5)):
            export(tmp_path, version)
            half = home / "serving" / "mnist" / str(version)
            shutil.copytree(tmp_path / str(version), half)
            os.truncate(half / "saved_model.pb", 1000)
            failed = mnist_tfx(command, "mnist", str(version), *address)
            assert failed.code == 1 and f"cannot load version {version}" in failed.err, failed
            shutil.copytree(tmp_path / str(version), half, dirs_exist_ok=True)
            time.sleep(1)  # the server has taken back what the command took back
            mended = mnist_tfx(command, "mnist", str(version), *address)
            assert mended.code == 0, mended.err
    finally:
        server.stop(1)
