"""Prometheus metrics, as an independent parser of the format reads them."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from mnist_tfx.serving.server.batching import Batcher
from mnist_tfx.serving.server.config import BatchingParameters, LoadOptions, ServerOptions
from mnist_tfx.serving.server.engine import Engine
from mnist_tfx.serving.server.errors import ServingError
from mnist_tfx.serving.server.lifecycle import Version
from mnist_tfx.serving.server.loader import ServableFactory
from mnist_tfx.serving.server.metrics import Histogram, Metrics
from mnist_tfx.serving.server.warmup import WARMUP_PATH
from tests.fixtures.saved_models import write_counter_model
from tests.serving.conftest import Running, predict_request, refused, running, scale_request

PREFIX = ":tensorflow:serving:"


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels; the parser adds `_total` to the names of counters."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(one: Running, path: str = "/monitoring/prometheus/metrics") -> str:
    with urllib.request.urlopen(f"{one.rest}{path}") as response:
        assert response.headers.get_content_type() == "text/plain"
        return response.read().decode()


def value(text: str, name: str, prefix: str = PREFIX, **labels: str) -> float:
    found = samples(text)
    key = frozenset(labels.items())
    return found.get((prefix + name, key), found.get((f"{prefix}{name}_total", key), 0))


@pytest.fixture(scope="module")
def fresh(served_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of its own, whose counters start at nothing; metrics at another path."""
    monitoring = tmp_path_factory.mktemp("monitoring") / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/numbers" }')
    options = ServerOptions(
        port=0,
        rest_api_port=-1,
        model_name="scale",
        model_base_path=str(served_models / "scale"),
        monitoring_config_file=str(monitoring),
    )
    with running(options) as one:
        yield one


def test_requests_are_counted_and_timed(fresh: Running) -> None:
    """What TF Serving counts: Predict, Classify, Regress and all of REST; latencies of successes only."""
    for _ in range(3):
        fresh.prediction.Predict(scale_request())
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        fresh.prediction.Predict(predict_request("scale", {}))
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        fresh.prediction.Classify(ClassificationRequest(model_spec=scale_request().model_spec))
    request = MultiInferenceRequest()
    request.tasks.add().model_spec.name = "scale"
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        fresh.prediction.MultiInference(request)
    path = f"{fresh.rest}/v1/models/scale"
    urllib.request.urlopen(urllib.request.Request(f"{path}:predict", b'{"instances": [[1, 2, 3]]}')).read()
    urllib.request.urlopen(path).read()
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(f"{path}:predict", b"{"))
    text = read(fresh, "/numbers")
    for status, count in {"OK": 5, "INVALID_ARGUMENT": 3, "UNIMPLEMENTED": 0}.items():
        assert value(text, "request_count", model_name="scale", status=status) == count
    name = {"model_name": "scale"}
    for api, entrypoint, count in (
        ("Predict", "GRPC", 3),
        ("Classify", "GRPC", 0),
        ("predict", "REST", 1),
        ("", "REST", 1),
    ):
        assert value(text, "request_latency_count", **name, API=api, entrypoint=entrypoint) == count
    latency = {**name, "API": "Predict"}
    assert value(text, "request_latency_bucket", **latency, entrypoint="GRPC", le="+Inf") == 3
    assert value(text, "request_latency_sum", **latency, entrypoint="GRPC") > 3 * 10  # microseconds
    assert value(text, "runtime_latency_count", **latency, runtime="TF1") == 4


def test_clients_cannot_make_up_series(fresh: Running) -> None:
    before = len(samples(read(fresh, "/numbers")))
    for number in range(20):
        with refused(grpc.StatusCode.NOT_FOUND):
            fresh.prediction.Predict(predict_request(f'made"up\\{number}', {}))
        with refused(grpc.StatusCode.NOT_FOUND):
            request = ClassificationRequest()
            request.model_spec.name = f"made up {number}"
            fresh.prediction.Classify(request)
    text = read(fresh, "/numbers")
    assert "made" not in text
    assert value(text, "request_count", model_name="", status="NOT_FOUND") == 40
    assert len(samples(text)) - before <= 1


def test_the_path_is_the_configs(fresh: Running, model_server: Running) -> None:
    assert ":tensorflow:serving:request_count" in read(model_server)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        read(fresh)


def test_off_without_a_monitoring_config(served_models: Path) -> None:
    options = ServerOptions(port=0, rest_api_port=-1, model_name="scale", model_base_path=str(served_models / "scale"))
    with running(options) as one, pytest.raises(urllib.error.HTTPError, match="404"):
        read(one)


def test_batches_are_counted_and_their_waits_timed(served_models: Path) -> None:
    metrics = Metrics()
    parameters = BatchingParameters(
        max_batch_size=8, allowed_batch_sizes=(4, 8), batch_timeout_micros=60_000_000, num_batch_threads=1
    )
    batcher = Batcher(parameters, metrics)
    engine = Engine(str(served_models / "scale" / "2"))
    begun = time.monotonic()
    futures = [
        batcher.submit(engine, "serving_default", {"x": np.ones((rows, 3), np.float32)}, ["y"]) for rows in (3, 5, 2)
    ]
    wait([futures[0], futures[1]])  # together they fill a batch
    batcher.close()  # the third waits no longer
    microseconds = (time.monotonic() - begun) * 1e6
    engine.close()
    assert [len(future.result()["y"]) for future in futures] == [3, 5, 2]
    text = metrics.text()
    session = "batching_session"
    assert value(text, f"{session}:queuing_latency_count", thread_pool_name="") == 3
    assert 0 < value(text, f"{session}:queuing_latency_sum", thread_pool_name="") <= 3 * microseconds
    for name, count, total in (("input_batch_size", 3, 3 + 5 + 2), ("processed_batch_size", 2, 8 + 4)):
        assert value(text, f"{session}:{name}_count") == count
        assert value(text, f"{session}:{name}_sum") == total
    assert value(text, f"{session}:wrapped_run_count") == 2
    for size, padding in (("8", 0), ("4", 2)):
        assert value(text, f"{session}:padding_size_count", execution_batch_size=size) == 1
        assert value(text, f"{session}:padding_size_sum", execution_batch_size=size) == padding


def test_loads_and_warm_ups_are_counted_and_timed(tmp_path: Path) -> None:
    metrics = Metrics()
    factory = ServableFactory(None, metrics, LoadOptions())
    good, cold, bad = (str(tmp_path / name) for name in ("good", "cold", "bad"))
    for path in (good, cold):
        write_counter_model(Path(path))
    warmup_file = Path(good, WARMUP_PATH)
    warmup_file.parent.mkdir()
    with tf.io.TFRecordWriter(str(warmup_file)) as writer:
        log = PredictionLog()
        log.predict_log.request.CopyFrom(predict_request("m", {"x": np.zeros((1, 1), np.float32)}))
        writer.write(log.SerializeToString())
    for path in (good, cold):
        factory.make(Version("m", 1, path)).close()
    for _ in range(2):
        with pytest.raises(ServingError):
            factory.make(Version("m", 2, bad))
    warmup_file.write_bytes(b"damaged" * 10)
    with pytest.raises(ServingError):
        factory.make(Version("m", 1, good))
    factory.close()
    text = metrics.text()
    saved_model = ":tensorflow:cc:saved_model:"
    attempts = {(good, "success"): 2, (cold, "success"): 1, (bad, "fail"): 2, (bad, "success"): 0}
    for (path, status), count in attempts.items():
        assert value(text, "load_attempt_count", saved_model, model_path=path, status=status) == count
    assert value(text, "load_latency", saved_model, model_path=good) > 0
    for (path, status), count in {(good, "OK"): 1, (good, "DATA_LOSS"): 1, (cold, "OK"): 0}.items():
        assert value(text, "model_warmup_latency_count", model_path=path, status=status) == count


def test_buckets_are_cumulative_and_their_bounds_belong_to_them() -> None:
    histogram = Histogram("h", ("a",), (1, 10))
    for observed in (0.5, 1, 5, 100):
        histogram.observe(('q"\\\n',), observed)
    found = samples("\n".join(histogram.lines()) + "\n")
    label = ("a", 'q"\\\n')
    assert found == {
        ("h_bucket", frozenset({label, ("le", "1")})): 2,
        ("h_bucket", frozenset({label, ("le", "10")})): 3,
        ("h_bucket", frozenset({label, ("le", "+Inf")})): 4,
        ("h_sum", frozenset({label})): 106.5,
        ("h_count", frozenset({label})): 4,
    }


def test_examples_are_counted(model_server: Running) -> None:
    before = read(model_server)
    for number in (3, 4):
        request = ClassificationRequest()
        request.model_spec.name, request.model_spec.signature_name = "examples", "classify"
        for _ in range(number):
            request.input.example_list.examples.add().features.feature["x"].float_list.value.append(0)
        model_server.prediction.Classify(request)
    after = read(model_server)
    labels = {"model": "examples"}
    for name, grown in (("request_example_count_total", 7), ("request_example_counts_count", 2)):
        assert value(after, name, **labels) - value(before, name, **labels) == grown
