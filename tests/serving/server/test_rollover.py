"""A new version is pushed while clients hammer: no call fails, and each is answered by the version it says."""

from __future__ import annotations

import json
import os
import shutil
import threading
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import tensorflow as tf
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from mnist_tfx.serving.server.config import ServerOptions
from tests.fixtures.saved_models import WIDTH, write_dense_model, write_scale_model
from tests.fixtures.server_process import server_processes
from tests.serving.conftest import Running, predict_request, running, scale_request, wait_until

CLIENTS = 6
VERSIONS = (2, 3, 4)
ROLLOVERS = 100
MOST_GROWTH = 16 * 2**20  # bytes, from the 20th rollover to the last; a version that stays takes more each time


class Hammer:
    """Threads that ask over and over; each answer is (version it says it is from, factor it was computed with)."""

    def __init__(self, asks: list[Callable[[], tuple[int, float]]]) -> None:
        self.answers: list[tuple[int, float]] = []
        self.errors: list[Exception] = []
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(ask,)) for ask in asks]

    def _run(self, ask: Callable[[], tuple[int, float]]) -> None:
        while not self._stopped.wait(0.002):
            try:
                self.answers.append(ask())
            except Exception as error:
                self.errors.append(error)

    def __enter__(self) -> Hammer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def over_grpc(stub: PredictionServiceStub, **spec: int) -> tuple[int, float]:
    response = stub.Predict(scale_request(**spec), timeout=20)
    return response.model_spec.version.value, float(tf.make_ndarray(response.outputs["factor"])[0])


def over_rest(one: Running, version: int) -> tuple[int, float]:
    request = urllib.request.Request(
        f"{one.rest}/v1/models/scale/versions/{version}:predict", b'{"instances": [[1, 2, 3]]}'
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        return version, json.loads(response.read())["predictions"][0]["factor"]


def answered_by(hammer: Hammer, version: int) -> bool:
    return bool(hammer.answers) and hammer.answers[-1][0] == version


def push(base: Path, version: int) -> None:
    """As the Pusher does: written elsewhere, renamed into place."""
    incoming = write_scale_model(base.parent / f"incoming-{version}", version)
    os.rename(incoming, base / str(version))


def test_a_rollover_under_load_fails_no_request(tmp_path: Path) -> None:
    base = tmp_path / "scale"
    base.mkdir()
    push(base, 1)
    options = ServerOptions(
        port=0,
        model_name="scale",
        model_base_path=str(base),
        file_system_poll_wait_seconds=0.05,
        enable_batching=True,
    )
    with running(options) as one:
        address = f"127.0.0.1:{one.server.grpc_port}"
        channels = [grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(CLIENTS)]
        stubs = [PredictionServiceStub(channel) for channel in channels]
        with Hammer([partial(over_grpc, stub) for stub in stubs]) as hammer:
            wait_until(lambda: len(hammer.answers) > 50, "the first answers")
            for version in VERSIONS:
                push(base, version)
                wait_until(partial(answered_by, hammer, version), f"an answer of version {version}")
        for channel in channels:
            channel.close()
    assert not hammer.errors
    assert {version for version, _ in hammer.answers} == {1, *VERSIONS}
    assert all(version == factor for version, factor in hammer.answers)


def test_other_versions_come_and_go_beside_a_pinned_one(tmp_path: Path) -> None:
    """Clients of one version, over both ports, do not notice its neighbours."""
    base = tmp_path / "scale"
    base.mkdir()
    push(base, 1)
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "scale" base_path: "{base}" model_platform: "tensorflow" '
        "model_version_policy { all {} } } }"
    )
    options = ServerOptions(port=0, rest_api_port=-1, model_config_file=str(config), file_system_poll_wait_seconds=0.05)
    with running(options) as one:
        asks = [lambda: over_grpc(one.prediction, version=1), lambda: over_rest(one, 1)]
        with Hammer(asks) as hammer:
            push(base, 2)
            wait_until(lambda: over_grpc(one.prediction) == (2, 2), "version 2")
            os.rename(base / "2", tmp_path / "gone")
            wait_until(lambda: over_grpc(one.prediction) == (1, 1), "version 2 to go")
    assert not hammer.errors
    assert set(hammer.answers) == {(1, 1)}


@pytest.mark.slow
def test_a_hundred_rollovers_leave_memory_and_descriptors_flat(tmp_path: Path) -> None:
    """A server process; each version takes the place of the one before, whose folder goes, while clients call."""
    base = tmp_path / "dense"
    write_dense_model(base / "1")
    request = predict_request("dense", {"x": np.ones((1, WIDTH), np.float32)})
    resident: dict[int, int] = {}
    descriptors: dict[int, int] = {}
    flags = ("--file_system_poll_wait_seconds=0.05", "--enable_batching")
    with (
        server_processes("dense", base, tmp_path / "log", 1, *flags) as [server],
        grpc.insecure_channel(server.address) as channel,
    ):
        process, stub = psutil.Process(server.process.pid), PredictionServiceStub(channel)

        def ask() -> tuple[int, float]:
            return stub.Predict(request, timeout=20).model_spec.version.value, 0.0

        with Hammer([ask] * 2) as hammer:
            for version in range(2, ROLLOVERS + 2):
                shutil.copytree(base / str(version - 1), base / ".incoming")
                os.rename(base / ".incoming", base / str(version))
                wait_until(partial(answered_by, hammer, version), f"an answer of version {version}")
                shutil.rmtree(base / str(version - 1))
                wait_until(partial(is_over, channel, "dense", version - 1), f"the end of version {version - 1}")
                resident[version - 1], descriptors[version - 1] = process.memory_info().rss, process.num_fds()
    told = {after: f"{resident[after] / 2**20:.1f} MiB, {descriptors[after]} open" for after in (1, 10, 20, 50, 100)}
    print(f"{len(hammer.answers)} answers, {len(hammer.errors)} errors; after so many rollovers: {told}")
    assert not hammer.errors
    assert descriptors[ROLLOVERS] <= descriptors[20], told
    assert resident[ROLLOVERS] - resident[20] < MOST_GROWTH, told


def is_over(channel: grpc.Channel, model: str, version: int) -> bool:
    request = GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version.value = model, version
    [status] = ModelServiceStub(channel).GetModelStatus(request, timeout=20).model_version_status
    return status.state == ModelVersionStatus.END
