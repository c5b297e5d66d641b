"""What is live stays live, and the server ends when it is told to: over real sockets, with real files in the way."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mnist_tfx.serving.server.config import ServerOptions
from mnist_tfx.serving.server.main import ModelServer
from mnist_tfx.serving.server.warmup import WARMUP_PATH
from tests.fixtures.server_process import CHECKOUT
from tests.serving.conftest import Running, predict_request, refused, running, scale_request, wait_until

SCALE = 'name: "scale" model_platform: "tensorflow"'


@pytest.fixture
def scale(served_models: Path, tmp_path: Path) -> Path:
    """A base path with version 2 of scale, to be changed."""
    shutil.copytree(served_models / "scale" / "2", tmp_path / "scale" / "2")
    return tmp_path / "scale"


@pytest.fixture
def config(scale: Path) -> Path:
    path = scale.with_name("models.config")
    path.write_text(f'model_config_list {{ config {{ {SCALE} base_path: "{scale}" }} }}')
    return path


@pytest.fixture
def following(config: Path) -> Iterator[Running]:
    """A server that looks at its config and its files all the time."""
    options = ServerOptions(
        port=0,
        rest_api_port=-1,
        model_config_file=str(config),
        model_config_file_poll_wait_seconds=0.05,
        file_system_poll_wait_seconds=0.05,
        load_retry_interval_micros=100_000,
    )
    with running(options) as one:
        yield one


def version(one: Running) -> int:
    return int(one.prediction.Predict(scale_request(), timeout=10).model_spec.version.value)


def make_hanging(folder: Path) -> Callable[[], None]:
    """A version whose load hangs as on a dead network mount; the function makes it fail instead."""
    folder.mkdir(parents=True)
    pipe = folder / "saved_model.pb"
    os.mkfifo(pipe)
    return lambda: pipe.open("wb").close()


def hears_sigterm(pid: int) -> bool:
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_list_that_was_emptied_is_refused_once_and_the_models_stay(
    following: Running, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    listed = config.read_text()
    said = ""

    def has_said(words: str) -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return words in said

    for text in ("", "# a comment, as the disk filled up\n"):
        config.write_text(text)
        wait_until(lambda: has_said("It is only legal to transition from one ModelConfigList"), "the refusal")
        time.sleep(0.5)  # ten more looks
        assert version(following) == 2
    assert not has_said("was taken over") and said.count("error:") == 1, said

    config.write_text(listed.replace("tensorflow", "onnx"))
    wait_until(lambda: has_said("'onnx'"), "the refusal")
    config.write_text(listed)
    time.sleep(0.3)
    assert not has_said("was taken over"), said  # it is what is served: nothing has changed

    nowhere = f'config {{ name: "more" model_platform: "tensorflow" base_path: "{config}.nowhere" }}'
    config.write_text(listed.replace("{", f"{{ {nowhere}", 1))
    wait_until(lambda: has_said("was taken over"), "the list with a model that is not there")
    time.sleep(0.3)
    assert not has_said("never said") and said.count("was taken over") == 1, said
    assert version(following) == 2

    config.write_text("model_config_list {}")  # this is meant
    wait_until(lambda: following.server.manager.names() == [], "the empty list")
    with refused(grpc.StatusCode.NOT_FOUND):
        wait_until(lambda: version(following) != 2, "the model to be unloaded")


def test_a_load_that_hangs_keeps_nobody_waiting(
    following: Running, scale: Path, config: Path, served_models: Path
) -> None:
    """Other models, health and new lists go on, and `stop` ends in time, also with a watch and a half-sent body."""
    releases = [make_hanging(scale.with_name("stuck") / str(number)) for number in range(1, 4)]
    stuck = f'config {{ name: "stuck" base_path: "{scale.with_name("stuck")}" model_platform: "tensorflow" '
    stuck += "model_version_policy { all {} } }"
    config.write_text(config.read_text().replace("model_config_list {", f"model_config_list {{ {stuck}", 1))
    try:
        wait_until(lambda: "stuck" in following.server.manager.names(), "the list")
        wait_until(lambda: not following.is_serving(), "health to tell of the model that is not there")
        assert following.is_serving("scale")
        os.mkdir(os.fsencode(scale) + b"/\xff")  # a name that is no text hides no version
        shutil.copytree(served_models / "scale" / "3", scale / "3")
        wait_until(lambda: version(following) == 3, "a new version")
        counter = f'config {{ name: "counter" base_path: "{served_models}/counter" model_platform: "tensorflow" }}'
        config.write_text(config.read_text().replace("model_config_list {", f"model_config_list {{ {counter}", 1))
        wait_until(lambda: following.is_serving("counter"), "a new model")

        watch = health_pb2_grpc.HealthStub(following.channel).Watch(health_pb2.HealthCheckRequest(service="scale"))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        with socket.create_connection(("127.0.0.1", following.server.rest_port)) as half:
            half.sendall(b"POST /v1/models/scale:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{")
            time.sleep(0.2)
            start = time.monotonic()
            following.server.stop(1)
            assert time.monotonic() - start < 5
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    finally:
        for release in releases:
            release()


def test_a_reload_ends_at_its_deadline_and_the_new_list_stays(
    following: Running, scale: Path, config: Path, served_models: Path
) -> None:
    stuck = scale.with_name("stuck")
    release = make_hanging(stuck / "1")
    more = f'config {{ name: "stuck" base_path: "{stuck}" model_platform: "tensorflow" }}'
    listed = config.read_text().replace("model_config_list {", f"model_config_list {{ {more}", 1)
    request = ReloadConfigRequest(config=text_format.Parse(listed, ModelServerConfig()))
    try:
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
            following.models.HandleReloadConfigRequest(request, timeout=0.3)
        wait_until(lambda: following.server._grpc._unary._in_hand == 0, "the call to end, though the load does not")
        assert version(following) == 2 and not following.is_serving("stuck")
        shutil.copytree(served_models / "scale" / "3", stuck / ".3").rename(stuck / "3")
        wait_until(lambda: following.is_serving("stuck"), "a version that does not hang")
    finally:
        release()


def slow_to_warm_up(served_models: Path, folder: Path) -> Path:
    """The model slow, which replays a request of about a second before it serves."""
    shutil.copytree(served_models / "slow" / "1", folder / "1")
    log = PredictionLog()
    log.predict_log.request.CopyFrom(predict_request("slow", {"steps": tf.constant([400_000], tf.int64)}))
    (folder / "1" / WARMUP_PATH).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / "1" / WARMUP_PATH)) as writer:
        writer.write(log.SerializeToString())
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def test_who_reaches_the_server_is_answered(served_models: Path, tmp_path: Path) -> None:
    base_path = slow_to_warm_up(served_models, tmp_path / "slow")
    options = ServerOptions(
        port=free_port(), rest_api_port=free_port(), model_name="slow", model_base_path=str(base_path)
    )
    server = ModelServer(options)
    started = threading.Thread(target=server.start)
    started.start()
    request, codes, statuses = predict_request("slow", {"steps": tf.constant([1], tf.int64)}), [], []
    end = time.monotonic() + 60
    try:
        while (not codes or codes[-1] is not grpc.StatusCode.OK or statuses[-1] != 200) and time.monotonic() < end:
            with grpc.insecure_channel(f"127.0.0.1:{options.port}", [("grpc.enable_retries", 0)]) as channel:
                codes.append(PredictionServiceStub(channel).Predict.future(request, timeout=10).code())
            connection = http.client.HTTPConnection("127.0.0.1", options.rest_api_port, timeout=10)
            try:
                connection.request("POST", "/v1/models/slow:predict", '{"instances": [1]}')
                statuses.append(connection.getresponse().status)
            except ConnectionRefusedError:
                statuses.append(0)
            finally:
                connection.close()
    finally:
        started.join()
        server.stop(1)
    assert set(codes) == {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK}
    assert set(statuses) == {0, 200}


@pytest.mark.fresh
def test_ctrl_c_while_the_libraries_are_loaded(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mnist_tfx.serving.server", f"--model_base_path={tmp_path}"]
    process = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: "aiohttp" in Path(f"/proc/{process.pid}/maps").read_text(), "the imports to begin")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "")


def test_a_first_load_that_hangs_does_not_keep_sigterm_waiting(tmp_path: Path) -> None:
    make_hanging(tmp_path / "m" / "1")
    command = [
        sys.executable,
        "-m",
        "mnist_tfx.serving.server",
        "--port=0",
        "--model_name=m",
        f"--model_base_path={tmp_path}/m",
    ]
    process = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: hears_sigterm(process.pid), "the server to begin")
    time.sleep(1)  # until the load hangs
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert process.returncode == 0, said
    assert "load m 1" in said and "Traceback" not in said, said
