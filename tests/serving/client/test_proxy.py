"""The logging proxy, a process of its own between real clients and a real server."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tests.serving.conftest import Running, predict_request, refused, scale_request, taken_up_calls
from tests.serving.server.test_service import (
    CLASSIFY,
    REGRESS,
    classification,
    metadata_request,
    multi,
    regression,
    status_request,
)

OTHER = "/team.Other/Echo"


@dataclass
class Proxied:
    """A running proxy, a channel to it, and what it said at its end."""

    process: subprocess.Popen[str]
    channel: grpc.Channel
    said: str = ""

    @property
    def prediction(self) -> PredictionServiceStub:
        return PredictionServiceStub(self.channel)

    def stop(self) -> int:
        """SIGTERM, as Kubernetes sends it; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        _, self.said = self.process.communicate(timeout=30)
        return self.process.returncode


@contextmanager
def proxied(address: str, folder: Path, *options: str) -> Iterator[Proxied]:
    command = [sys.executable, "-m", "mnist_tfx.serving.client.proxy", "--listen", "127.0.0.1:0", "--server", address]
    process = subprocess.Popen([*command, "--folder", str(folder), *options], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = re.fullmatch(r"listening on port (\d+)\n", process.stderr.readline())
        assert found
        options_here = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(f"127.0.0.1:{found[1]}", options_here) as channel:
            yield Proxied(process, channel)
    finally:
        process.kill()
        process.communicate()


def logged(folder: Path) -> list[PredictionLog]:
    paths = sorted(map(str, folder.glob("requests-*.tfrecord.gz")))
    records = tf.data.TFRecordDataset(paths, compression_type="GZIP").as_numpy_iterator()
    return [PredictionLog.FromString(record) for record in records]


def address(one: Running) -> str:
    return f"127.0.0.1:{one.server.grpc_port}"


def test_every_method_answers_as_without_and_is_logged(model_server: Running, tmp_path: Path) -> None:
    calls: list[tuple[str, str, Any]] = [
        ("predict_log", "Predict", scale_request(2)),
        ("predict_log", "Predict", scale_request(1000)),
        ("classify_log", "Classify", classification(0.25, 1, signature="classify")),
        ("regress_log", "Regress", regression(1, 2, signature="regress")),
        (
            "multi_inference_log",
            "MultiInference",
            multi(("examples", "classify", CLASSIFY), ("examples", "regress", REGRESS)),
        ),
    ]
    with proxied(address(model_server), tmp_path) as proxy:
        answers = [getattr(proxy.prediction, method)(request) for _, method, request in calls]
        asked = metadata_request("scale", "signature_def")
        assert proxy.prediction.GetModelMetadata(asked) == model_server.prediction.GetModelMetadata(asked)
        status = status_request("scale")
        assert ModelServiceStub(proxy.channel).GetModelStatus(status) == model_server.models.GetModelStatus(status)
        assert proxy.stop() == 0
    assert "5 records written, 0 dropped" in proxy.said
    records = logged(tmp_path)
    assert [record.WhichOneof("log_type") for record in records] == [kind for kind, _, _ in calls]
    for record, answer, (kind, method, request) in zip(records, answers, calls, strict=True):
        assert answer == getattr(model_server.prediction, method)(request)
        assert (getattr(record, kind).request, getattr(record, kind).response) == (request, answer)
        spec = answer.results[0].model_spec if kind == "multi_inference_log" else answer.model_spec
        assert record.log_metadata.model_spec == spec and spec.version.value
        assert record.log_metadata.timestamp_secs and record.log_metadata.sampling_config.sampling_rate == 1


def test_errors_deadlines_and_a_share(model_server: Running, tmp_path: Path) -> None:
    with proxied(address(model_server), tmp_path, "--sampling", "0") as proxy:
        request = scale_request()
        request.model_spec.name = "none"
        told = []
        for stub in (model_server.prediction, proxy.prediction):
            with refused(grpc.StatusCode.NOT_FOUND) as words:
                stub.Predict(request)
            told += words
        assert told[0] == told[1]
        slow = predict_request("slow", {"steps": np.array([2_000_000, 1], np.int64)})
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
            proxy.prediction.Predict(slow, timeout=0.2)
        proxy.prediction.Predict(scale_request())
        assert proxy.stop() == 0
    assert "0 records written, 0 dropped" in proxy.said and not list(tmp_path.iterdir())


def test_calls_in_hand_at_sigterm_are_finished_and_logged(model_server: Running, tmp_path: Path) -> None:
    slow = predict_request("slow", {"steps": np.array([200_000], np.int64)})  # about a second
    with proxied(address(model_server), tmp_path) as proxy:
        [in_hand] = taken_up_calls(proxy.channel, [slow])
        assert proxy.stop() == 0
        answer = in_hand.result(10)
    assert "1 records written, 0 dropped" in proxy.said
    [record] = logged(tmp_path)
    assert (record.predict_log.request, record.predict_log.response) == (slow, answer)


def test_health_and_reflection_go_through(model_server: Running, tmp_path: Path) -> None:
    with proxied(address(model_server), tmp_path) as proxy:
        health = health_pb2_grpc.HealthStub(proxy.channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        assert health.Check(health_pb2.HealthCheckRequest()).status == serving
        with refused(grpc.StatusCode.NOT_FOUND):
            health.Check(health_pb2.HealthCheckRequest(service="none"))
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == serving
        watch.cancel()
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = reflection_pb2_grpc.ServerReflectionStub(proxy.channel).ServerReflectionInfo(iter([asked]))
        names = {service.name for service in answer.list_services_response.service}
        assert "tensorflow.serving.PredictionService" in names


class Echo(grpc.GenericRpcHandler):
    """A server that tells what reached it."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.began = threading.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        given = {key: value for key, value in context.invocation_metadata() if key.startswith(("x-", "ten"))}
        context.set_trailing_metadata((*given.items(), ("x-left", f"{context.time_remaining():.0f}")))
        if request == b"fail":
            context.abort(grpc.StatusCode.ABORTED, "as asked: ä")
        if request == b"stop":
            context.abort(grpc.StatusCode.CANCELLED, "the server stops")
        if request == b"wait":
            context.add_callback(self.cancelled.set)
            self.began.set()
            self.cancelled.wait(30)
        context.send_initial_metadata((("x-initial", "1"),))
        return request


@pytest.fixture
def echo() -> Iterator[tuple[Echo, str]]:
    from concurrent.futures import ThreadPoolExecutor

    handler = Echo()
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(0)


@pytest.mark.parametrize("path", ["/tensorflow.serving.PredictionService/Predict", OTHER])
def test_metadata_and_cancellations_go_with_a_call(echo: tuple[Echo, str], tmp_path: Path, path: str) -> None:
    handler, server = echo
    with proxied(server, tmp_path, "--sampling", "0") as proxy:
        call = proxy.channel.unary_unary(path)
        sent = (("x-user", "me"), ("x-bytes-bin", b"\0\xff"), ("tenant", "us"))
        answer, info = call.with_call(b"hello", metadata=sent, timeout=50)
        trailing = dict(info.trailing_metadata())
        assert (answer, trailing["x-user"], trailing["x-bytes-bin"]) == (b"hello", "me", b"\0\xff")
        assert trailing["tenant"] == "us"
        assert 45 <= int(trailing["x-left"]) <= 50
        if path != OTHER:
            assert dict(info.initial_metadata())["x-initial"] == "1"
        with pytest.raises(grpc.RpcError) as failure:
            call(b"fail", metadata=sent, timeout=5)
        assert failure.value.code() is grpc.StatusCode.ABORTED and failure.value.details() == "as asked: ä"
        assert dict(failure.value.trailing_metadata())["x-user"] == "me"
        with pytest.raises(grpc.RpcError) as failure:
            call(b"stop", timeout=5)
        assert failure.value.code() is grpc.StatusCode.CANCELLED and failure.value.details() == "the server stops"
        waiting = call.future(b"wait", timeout=30)
        assert handler.began.wait(10)
        waiting.cancel()
        assert handler.cancelled.wait(10), "the server is told"


def test_a_server_that_is_away_is_unavailable_and_wrong_options_are_told(tmp_path: Path) -> None:
    with proxied("127.0.0.1:1", tmp_path) as proxy, refused(grpc.StatusCode.UNAVAILABLE):
        proxy.prediction.Predict(scale_request())
    for options, words in (
        (["--sampling", "2"], "a share from 0 to 1"),
        (["--pixels", "some"], "full, hash"),
        (["--listen", "nowhere:1"], "cannot listen at nowhere:1"),
        (["--grpc-channel-arguments", "grpc.max_connection_age_ms"], "give NAME=NUMBER"),
        (["--grpc-channel-arguments", "grpc.max_connection_age_ms=long"], "give NAME=NUMBER"),
    ):
        command = [sys.executable, "-m", "mnist_tfx.serving.client.proxy", "--folder", str(tmp_path), *options]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 2 and "error: " in ended.stderr and words in ended.stderr, ended.stderr
        assert "Traceback" not in ended.stderr


def test_an_http_proxy_in_the_environment_does_not_get_calls_to_the_server_beside_it(
    echo: tuple[Echo, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    for name in ("no_proxy", "no_grpc_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with proxied(echo[1], tmp_path, "--sampling", "0") as proxy:
        assert proxy.channel.unary_unary(OTHER)(b"hello", timeout=10) == b"hello"


def test_a_server_that_is_away_is_looked_for_as_often_as_by_the_client(tmp_path: Path) -> None:
    """By gRPC's default the sixth attempt to connect comes after 12 s at the earliest, later ones each two minutes."""
    with (
        socket.create_server(("127.0.0.1", 0)) as away,
        proxied(f"127.0.0.1:{away.getsockname()[1]}", tmp_path) as proxy,
    ):
        end = time.monotonic() + 6
        call = proxy.channel.unary_unary(OTHER).future(b"hello", timeout=30)
        for _ in range(6):
            away.settimeout(max(0.01, end - time.monotonic()))
            away.accept()[0].close()
        assert call.code() is grpc.StatusCode.UNAVAILABLE


def test_pixels_are_hashed_on_request(model_server: Running, tmp_path: Path) -> None:
    with proxied(address(model_server), tmp_path, "--pixels", "hash") as proxy:
        answer = proxy.prediction.Predict(scale_request(2))
        proxy.stop()
    [record] = logged(tmp_path)
    assert list(record.predict_log.request.inputs) == ["x.sha256"] and record.predict_log.response == answer
    first, second = tf.make_ndarray(record.predict_log.request.inputs["x.sha256"])
    assert first == second and len(first) == 64
    assert np.array([1, 2, 3], "<f4").tobytes() not in record.SerializeToString()
