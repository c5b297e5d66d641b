"""A model server of small models in this process, on ports of its own, and the official stubs for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from mnist_tfx.serving.server.config import ServerOptions
from mnist_tfx.serving.server.main import ModelServer
from tests.fixtures.front_models import (
    write_examples_model,
    write_inference_model,
    write_mixed_model,
    write_slow_model,
)
from tests.fixtures.saved_models import write_counter_model, write_scale_model

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Running:
    """A server, a channel to it, and the official stubs over that."""

    server: ModelServer
    channel: grpc.Channel
    prediction: PredictionServiceStub
    models: ModelServiceStub

    @property
    def rest(self) -> str:
        """The REST port's URL."""
        return f"http://127.0.0.1:{self.server.rest_port}"

    def is_serving(self, service: str = "") -> bool:
        """What health says; false too where it knows no such service (yet)."""
        try:
            answer = health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(service=service))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return answer.status == health_pb2.HealthCheckResponse.SERVING


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Waits for something that happens in another thread or process."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.02)


@contextmanager
def running(options: ServerOptions, **arguments: Any) -> Iterator[Running]:
    """A server whose models are all available."""
    server = ModelServer(options, **arguments)
    try:
        server.start()
        with grpc.insecure_channel(
            f"127.0.0.1:{server.grpc_port}", [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
        ) as channel:
            one = Running(server, channel, PredictionServiceStub(channel), ModelServiceStub(channel))
            wait_until(one.is_serving, "all models to be available")
            yield one
    finally:
        server.stop(5)


def taken_up_calls(channel: grpc.Channel, requests: Sequence[predict_pb2.PredictRequest]) -> list[Any]:
    """Predict calls under way that the server has taken up: what it has not, it may cancel once it stops.

    A connection keeps the order, and a server takes up one call of a method after the other: each call has been, once
    as many others were answered.
    """
    calls = [PredictionServiceStub(channel).Predict.future(request) for request in requests]
    for _ in calls:
        with suppress(grpc.RpcError):
            ModelServiceStub(channel).GetModelStatus(GetModelStatusRequest())
    return calls


def predict_request(model: str, inputs: dict[str, Any], signature: str = "", **spec: Any) -> predict_pb2.PredictRequest:
    """A request with arrays (or TensorProtos) by name; `spec`: version or version_label."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    for name, value in inputs.items():
        proto = value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value)
        request.inputs[name].CopyFrom(proto)
    return request


def scale_request(rows: int = 1, **spec: Any) -> predict_pb2.PredictRequest:
    """A good request to the model `scale`: rows of 1, 2, 3."""
    x = np.tile(np.array([1, 2, 3], np.float32), (rows, 1))
    return predict_request("scale", {"x": x}, **spec)


@contextmanager
def refused(code: grpc.StatusCode) -> Iterator[list[str]]:
    """Expects an RPC to fail with a code; the words are in the list afterwards."""
    words: list[str] = []
    with pytest.raises(grpc.RpcError) as failure:
        yield words
    assert failure.value.code() is code, failure.value
    words.append(failure.value.details())


@pytest.fixture(scope="session")
def served_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of models: scale (versions 2 and 3, factors 2 and 3), counter, slow, mixed, examples, inference (1)."""
    root = tmp_path_factory.mktemp("served")
    for factor in (2, 3):
        write_scale_model(root / "scale" / str(factor), factor)
    write_counter_model(root / "counter" / "1")
    write_slow_model(root / "slow" / "1")
    write_mixed_model(root / "mixed" / "1")
    write_examples_model(root / "examples" / "1")
    write_inference_model(root / "inference" / "1")
    return root


CONFIG = """
model_config_list {{
  config {{
    name: "scale" base_path: "{root}/scale" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 2 versions: 3 }} }}
    version_labels {{ key: "stable" value: 2 }}
    version_labels {{ key: "canary" value: 3 }}
  }}
  config {{ name: "slow" base_path: "{root}/slow" model_platform: "tensorflow" }}
  config {{ name: "counter" base_path: "{root}/counter" model_platform: "tensorflow" }}
  config {{ name: "mixed" base_path: "{root}/mixed" model_platform: "tensorflow" }}
  config {{ name: "examples" base_path: "{root}/examples" model_platform: "tensorflow" }}
  config {{ name: "team/ä: inference" base_path: "{root}/inference" model_platform: "tensorflow" }}
}}
"""


@pytest.fixture(scope="session")
def served_config(served_models: Path) -> Path:
    """A ModelServerConfig of `served_models`, with labels on the versions of scale."""
    path = served_models / "models.config"
    path.write_text(CONFIG.format(root=served_models))
    return path


def _available(one: Running, model: str) -> int:
    states = [status.state for status in one.server.manager.statuses(model)]
    return states.count(ModelVersionStatus.AVAILABLE)


@pytest.fixture(scope="session")
def model_server(served_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serves `served_config` with batching and metrics."""
    monitoring = tmp_path_factory.mktemp("monitoring") / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }')
    options = ServerOptions(
        port=0,
        rest_api_port=-1,
        model_config_file=str(served_config),
        allow_version_labels_for_unavailable_models=True,
        monitoring_config_file=str(monitoring),
        enable_batching=True,
        file_system_poll_wait_seconds=0.1,
        rest_api_timeout_in_ms=5_000,
    )
    with running(options) as one:
        wait_until(lambda: _available(one, "scale") == 2, "both versions of scale")  # it is available with the first
        yield one
