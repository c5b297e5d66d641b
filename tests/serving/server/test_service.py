"""The other methods of the gRPC port, health, reflection, and what must not break it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.serving.server import limits, service, unary
from mnist_tfx.serving.server.config import ServerOptions
from mnist_tfx.serving.server.main import ModelServer
from tests.serving.conftest import (
    Running,
    predict_request,
    refused,
    running,
    scale_request,
    taken_up_calls,
    wait_until,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


def with_examples(request: Any, *values: float, signature: str = "", model: str = "examples") -> Any:
    """Fills a classify, regress or multi-inference request."""
    for value in values:
        request.input.example_list.examples.add().features.feature["x"].float_list.value.append(value)
    if hasattr(request, "model_spec"):
        request.model_spec.name = model
        request.model_spec.signature_name = signature
    return request


def classification(*values: float, **spec: str) -> classification_pb2.ClassificationRequest:
    return with_examples(classification_pb2.ClassificationRequest(), *values, **spec)


def regression(*values: float, **spec: str) -> regression_pb2.RegressionRequest:
    return with_examples(regression_pb2.RegressionRequest(), *values, **spec)


def multi(*tasks: tuple[str, str, str]) -> inference_pb2.MultiInferenceRequest:
    """Tasks of (model, signature, method) on the example 0.25."""
    request = with_examples(inference_pb2.MultiInferenceRequest(), 0.25)
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = model, signature
    return request


def test_classify(model_server: Running) -> None:
    response = model_server.prediction.Classify(classification(0.25, 1, signature="classify"))
    answers = [[(one.label, one.score) for one in each.classes] for each in response.result.classifications]
    assert answers == [[("yes", 0.25), ("no", 0.75)], [("yes", 1), ("no", 0)]]
    assert response.model_spec.version.value == 1 and response.model_spec.signature_name == "classify"


def test_classify_with_one_output(model_server: Running) -> None:
    scores = model_server.prediction.Classify(classification(0.25, signature="scores_only")).result
    assert [(one.label, one.score) for one in scores.classifications[0].classes] == [("", 0.25), ("", 0.75)]
    classes = model_server.prediction.Classify(classification(0.25, signature="classes_only")).result
    assert [(one.label, one.score) for one in classes.classifications[0].classes] == [("yes", 0), ("no", 0)]


def test_regress(model_server: Running) -> None:
    response = model_server.prediction.Regress(regression(1, 2, signature="regress"))
    assert [one.value for one in response.result.regressions] == [3, 5]


def test_an_examples_own_features_win_over_the_context(model_server: Running) -> None:
    request = regression(signature="regress")
    given = request.input.example_list_with_context
    given.context.features.feature["x"].float_list.value.append(5)
    given.examples.add().features.feature["x"].float_list.value.append(1)
    given.examples.add()
    response = model_server.prediction.Regress(request)
    assert [one.value for one in response.result.regressions] == [3, 11]


def test_multi_inference(model_server: Running) -> None:
    tasks = (("examples", "classify", CLASSIFY), ("examples", "regress", REGRESS))
    first, second = model_server.prediction.MultiInference(multi(*tasks)).results
    assert first.classification_result.classifications[0].classes[0].score == 0.25
    assert second.regression_result.regressions[0].value == 1.5
    assert (first.model_spec.signature_name, second.model_spec.signature_name) == ("classify", "regress")


def test_multi_inference_feeds_the_examples_to_each_input(model_server: Running) -> None:
    tasks = (("examples", "regress", REGRESS), ("examples", "other_input", REGRESS))
    results = model_server.prediction.MultiInference(multi(*tasks)).results
    assert [one.regression_result.regressions[0].value for one in results] == [1.5, 0.25]


def test_signatures_without_a_method_name(model_server: Running) -> None:
    """Those of TF 2. Of two outputs, the one that is neither classes nor scores is passed over."""
    name = "team/ä: inference"
    answer = model_server.prediction.Classify(classification(0.25, signature="classify", model=name))
    assert [one.score for one in answer.result.classifications[0].classes] == [0.25, 0.75]
    answer = model_server.prediction.Regress(regression(0.25, signature="regress", model=name))
    assert answer.result.regressions[0].value == 1.5
    tasks = ((name, "classify", CLASSIFY), (name, "regress", REGRESS))
    first, second = model_server.prediction.MultiInference(multi(*tasks)).results
    assert first.classification_result.classifications[0].classes[1].score == 0.75
    assert second.regression_result.regressions[0].value == 1.5


@pytest.mark.parametrize(
    ("method", "request_", "code", "words"),
    [
        ("Classify", classification(1, model="nobody"), NOT_FOUND, "Servable not found for request: Latest(nobody)"),
        ("Classify", classification_pb2.ClassificationRequest(), INVALID, "Missing ModelSpec"),
        ("Classify", classification(1, signature="s"), INVALID, "No signature was found with the name: s"),
        ("Classify", classification(1, signature="regress"), INVALID, "contain at least one of"),
        ("Classify", classification(1, model="scale"), INVALID, "No classification inputs found"),
        ("Classify", classification(signature="classify"), INVALID, "Input is empty."),
        ("Regress", regression(1, signature="s"), INVALID, "No signature was found with the name: s"),
        ("Regress", regression(1, signature="classify"), INVALID, "Expected one output Tensor."),
        ("MultiInference", multi(), INVALID, "ModelSpec has no name"),
        (
            "MultiInference",
            multi(("examples", "regress", REGRESS), ("scale", "regress", REGRESS)),
            INVALID,
            "must access the same model name",
        ),
        (
            "MultiInference",
            multi(("examples", "regress", REGRESS), ("examples", "regress", REGRESS)),
            INVALID,
            "Duplicate evaluation of signature: regress",
        ),
        (
            "MultiInference",
            multi(("examples", "regress", "x")),
            grpc.StatusCode.UNIMPLEMENTED,
            "Unsupported signature method_name: x",
        ),
    ],
)
def test_errors_of_inference(
    model_server: Running, method: str, request_: Any, code: grpc.StatusCode, words: str
) -> None:
    with refused(code) as said:
        getattr(model_server.prediction, method)(request_)
    assert words in said[0]


def metadata_request(model: str, *fields: str) -> get_model_metadata_pb2.GetModelMetadataRequest:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = model
    return request


def test_metadata(model_server: Running) -> None:
    response = model_server.prediction.GetModelMetadata(metadata_request("scale", "signature_def"))
    assert response.model_spec.version.value == 3
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def["serving_default"].outputs) == {"y", "factor"}


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (metadata_request("scale"), INVALID, "at least one metadata_field"),
        (metadata_request("scale", "weights"), INVALID, "Metadata field weights is not supported"),
        (metadata_request("nobody", "signature_def"), NOT_FOUND, "Servable not found for request: Latest(nobody)"),
        (get_model_metadata_pb2.GetModelMetadataRequest(), INVALID, "Missing ModelSpec"),
    ],
)
def test_errors_of_metadata(model_server: Running, request_: Any, code: grpc.StatusCode, words: str) -> None:
    with refused(code) as said:
        model_server.prediction.GetModelMetadata(request_)
    assert words in said[0]


def status_request(model: str, version: int = 0, label: str = "") -> get_model_status_pb2.GetModelStatusRequest:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    if version:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    return request


@pytest.mark.parametrize(("version", "label", "expected"), [(0, "", [3, 2]), (2, "", [2]), (0, "canary", [3])])
def test_status(model_server: Running, version: int, label: str, expected: list[int]) -> None:
    statuses = model_server.models.GetModelStatus(status_request("scale", version, label)).model_version_status
    assert [one.version for one in statuses] == expected
    assert {one.state for one in statuses} == {30}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (status_request("nobody"), "Could not find any versions of model nobody"),
        (status_request("scale", 9), "Could not find version 9 of model scale"),
    ],
)
def test_status_of_what_is_not_there(model_server: Running, request_: Any, words: str) -> None:
    with refused(NOT_FOUND) as said:
        model_server.models.GetModelStatus(request_)
    assert said == [words]


def model_list(**base_paths: Path) -> ModelServerConfig:
    models = ModelServerConfig()
    for name, base_path in base_paths.items():
        models.model_config_list.config.add(name=name, base_path=str(base_path), model_platform="tensorflow")
    return models


def test_reload_replaces_the_whole_list(served_models: Path) -> None:
    options = ServerOptions(port=0, model_name="scale", model_base_path=str(served_models / "scale"))
    with running(options) as one:
        reload = one.models.HandleReloadConfigRequest
        config = model_list(counter=served_models / "counter")
        assert reload(model_management_pb2.ReloadConfigRequest(config=config)).status.error_code == 0
        one.prediction.Predict(predict_request("counter", {"x": np.zeros((1, 1), np.float32)}))
        with refused(NOT_FOUND):
            one.prediction.Predict(scale_request())
        wait_until(lambda: one.is_serving("counter"), "health of the new model")
        assert one.is_serving() and not one.is_serving("scale")
        with refused(INVALID):
            reload(model_management_pb2.ReloadConfigRequest(config=model_list(broken=Path("relative"))))
        with refused(INVALID) as said:
            reload(model_management_pb2.ReloadConfigRequest())
        assert "Only ModelConfigList" in said[0]
        assert one.is_serving("counter")


def test_health_follows_the_models(served_models: Path, tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    config.write_text(text_format.MessageToString(model_list(here=served_models / "scale", later=tmp_path / "later")))
    options = ServerOptions(port=0, model_config_file=str(config), file_system_poll_wait_seconds=0.1)
    server = ModelServer(options)
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            one = Running(server, channel, PredictionServiceStub(channel), None)  # type: ignore[arg-type]
            wait_until(lambda: one.is_serving("here"), "the model that is there")
            assert not one.is_serving("later") and not one.is_serving()
            watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="later"))
            assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
            (tmp_path / "later").symlink_to(served_models / "counter")
            assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
            watched.cancel()
            wait_until(one.is_serving, "the server's health")
            with refused(NOT_FOUND):
                health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="nobody"))
    finally:
        server.stop(1)


def test_reflection_describes_both_services(model_server: Running) -> None:
    database = ProtoReflectionDescriptorDatabase(model_server.channel)
    assert {service.PREDICTION_SERVICE, service.MODEL_SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    described = database.FindFileContainingSymbol("tensorflow.serving.ModelService")
    assert [method.name for method in described.service[0].method] == ["GetModelStatus", "HandleReloadConfigRequest"]


def test_bytes_that_are_no_message(model_server: Running) -> None:
    for method in ("PredictionService/Predict", "PredictionService/Classify", "ModelService/GetModelStatus"):
        call = model_server.channel.unary_unary(f"/tensorflow.serving.{method}")
        with refused(grpc.StatusCode.INTERNAL) as said:
            call(b"\xff\xff\xff\xff not a message")
        assert "the bytes are not a tensorflow.serving." in said[0]
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        model_server.channel.unary_unary("/tensorflow.serving.PredictionService/Nothing")(b"")


def test_a_message_over_the_limit(model_server: Running) -> None:
    request = predict_request("scale", {"x": np.zeros((9_000_000, 3), np.float32)})
    assert request.ByteSize() > 100 * 2**20
    resident = psutil.Process().memory_info().rss
    for method in (model_server.prediction.Predict, model_server.prediction.Classify):
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
            method(request)
    assert psutil.Process().memory_info().rss - resident < 3 * request.ByteSize()  # the client's own copies
    model_server.prediction.Predict(scale_request())


def test_a_large_message_under_the_limit(model_server: Running) -> None:
    x = np.arange(1_500_000, dtype=np.float32).reshape(-1, 3)  # 6 MB, decoded by a thread
    with refused(INVALID):
        model_server.prediction.Predict(predict_request("scale", {"x": x}))
    request = predict_request("scale", {"x": x.reshape(-1, 3000)})
    request.output_filter.append("y")
    y = model_server.prediction.Predict(request).outputs["y"]
    np.testing.assert_array_equal(tf.make_ndarray(y), 3 * x.reshape(-1, 3000))


def test_a_packed_message_is_unpacked_within_the_limit(model_server: Running) -> None:
    small = model_server.prediction.Predict(scale_request(), compression=grpc.Compression.Gzip)
    assert small.model_spec.version.value == 3
    bomb = predict_request("scale", {"x": np.zeros((9_000_000, 3), np.float32)})
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
        model_server.prediction.Predict(bomb, compression=grpc.Compression.Gzip)


def at_rest(one: Running) -> bool:
    calls = one.server._grpc._unary
    return (calls._in_hand, calls._held_bytes, calls._receiving, calls._sending) == (0, 0, {}, {})


def slow_request(rows: int) -> predict_pb2.PredictRequest:
    """It takes about half a second."""
    return predict_request("slow", {"steps": np.full(rows, 100_000, np.int64)})


def test_a_call_too_many_is_refused_and_the_others_are_answered(
    model_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until(lambda: at_rest(model_server), "what was before")
    in_hand = [model_server.prediction.Predict.future(slow_request(1)) for _ in range(3)]
    wait_until(lambda: model_server.server._grpc._unary._in_hand == 3, "the calls")
    monkeypatch.setattr(limits, "MAX_CALLS", 3)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as said:
        model_server.prediction.Predict(scale_request())
    assert said == ["Concurrent RPC limit exceeded!"]
    assert {call.code() for call in in_hand} == {grpc.StatusCode.OK}
    model_server.prediction.Predict(scale_request())


def test_a_large_request_too_many_is_refused_and_a_small_one_is_not(
    model_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until(lambda: at_rest(model_server), "what was before")
    slow, large = slow_request(200), scale_request(100)
    monkeypatch.setattr(limits, "LARGE_MESSAGE_BYTES", 1000)
    monkeypatch.setattr(limits, "MAX_HELD_BYTES", slow.ByteSize() + large.ByteSize() - 1)
    in_hand = model_server.prediction.Predict.future(slow)
    wait_until(lambda: model_server.server._grpc._unary._held_bytes == slow.ByteSize(), "the large request")
    with refused(grpc.StatusCode.UNAVAILABLE) as said:
        model_server.prediction.Predict(large)
    assert said == ["too many large requests in hand, try again later"]
    model_server.prediction.Predict(scale_request())
    assert in_hand.code() is grpc.StatusCode.OK
    wait_until(lambda: at_rest(model_server), "all calls to be over")
    model_server.prediction.Predict(large)


def test_cancelled_and_abandoned_calls_leave_nothing_behind(model_server: Running) -> None:
    def hang_up(_: int) -> None:
        with grpc.insecure_channel(
            f"127.0.0.1:{model_server.server.grpc_port}", [("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            stub = PredictionServiceStub(channel)
            stub.Predict.future(scale_request())
            stub.Predict.future(predict_request("slow", {"steps": np.array([20_000], np.int64)})).cancel()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hang_up, range(20)))
    wait_until(lambda: at_rest(model_server), "all calls to be over")
    model_server.prediction.Predict(scale_request())


def test_clients_that_stall_are_given_up(served_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One stops in the middle of requests and takes no answers; that is noticed, and nobody waits for it."""
    options = ServerOptions(port=0, model_name="scale", model_base_path=str(served_models / "scale"))
    large = predict_request("scale", {"x": np.zeros((500_000, 3), np.float32)})
    with running(options) as one, stalling_proxy(one.server.grpc_port) as (port, stall):
        receiving = one.server._grpc._unary._receiving
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_retries", 0)]) as channel:
            stub = PredictionServiceStub(channel)
            stub.Predict(scale_request())
            stall.set()
            calls = [stub.Predict.future(large) for _ in range(4)]
            wait_until(lambda: len(receiving) > 0, "its requests")
            monkeypatch.setattr(limits, "STALL_SECONDS", 0.5)
            assert one.prediction.Predict(scale_request(), timeout=0.4).model_spec.version.value == 3
            wait_until(lambda: at_rest(one), "its calls to be given up")
            for call in calls:
                call.cancel()


@pytest.mark.parametrize("method", ["Predict", "Classify"])
def test_many_that_send_only_headers_stop_nobody(
    model_server: Running, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The others' calls of all kinds are answered; the oldest are given up, with words, as soon as they are slow."""
    monkeypatch.setattr(limits, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(limits, "MAX_SLOW_CALLS", 4)
    given_up = threading.Event()

    def nothing() -> Iterator[bytes]:
        given_up.wait()
        yield from ()

    call = model_server.channel.stream_unary(f"/tensorflow.serving.PredictionService/{method}")
    stalled = [call.future(nothing()) for _ in range(40)]
    receiving = model_server.server._grpc._unary._receiving
    wait_until(lambda: len(receiving) == 40, "the headers")
    assert model_server.prediction.Predict(scale_request(), timeout=2).model_spec.version.value == 3
    model_server.prediction.Classify(classification(0.25, signature="classify"), timeout=2)
    model_server.models.GetModelStatus(status_request("scale"), timeout=2)
    assert model_server.is_serving()
    wait_until(lambda: len(receiving) == 4, "all but four to be given up")
    assert stalled[0].code() is grpc.StatusCode.UNAVAILABLE and "slowly" in stalled[0].details()
    given_up.set()
    wait_until(lambda: at_rest(model_server), "the rest")


def strings_in_content(count: int) -> Any:
    """A request with so many empty strings in `tensor_content`, in one row."""
    tensor = tf.make_tensor_proto(np.zeros((1, 1), np.float32))
    tensor.dtype, tensor.tensor_content = 7, bytes(count)
    tensor.tensor_shape.dim[1].size = count
    return predict_request("scale", {"x": tensor})


def numbers_in_field(count: int) -> Any:
    tensor = tf.make_tensor_proto(np.zeros((1, 1), np.int32))
    tensor.tensor_shape.dim[1].size = count
    tensor.int_val.extend([1] * count)
    return predict_request("scale", {"x": tensor})


@pytest.mark.parametrize(
    ("method", "request_", "code", "words"),
    [
        ("Predict", strings_in_content(1_000_000), INVALID, "cannot hold 1000000 strings"),
        ("Predict", numbers_in_field(10_000_000), grpc.StatusCode.RESOURCE_EXHAUSTED, "send numbers as tensor_content"),
        ("Classify", classification(*[1.0] * 40_000), grpc.StatusCode.RESOURCE_EXHAUSTED, "many examples in several"),
    ],
)
def test_what_costs_more_than_its_bytes_tell(
    model_server: Running, method: str, request_: Any, code: grpc.StatusCode, words: str
) -> None:
    """It is refused before it is paid, and meanwhile others are answered as ever."""
    with ThreadPoolExecutor(4) as pool:
        call = getattr(model_server.prediction, method)
        hostile = [pool.submit(call, request_) for _ in range(4)]
        worst = 0.0
        while not all(one.done() for one in hostile):
            begin = time.monotonic()
            model_server.prediction.Predict(scale_request(), timeout=10)
            worst = max(worst, time.monotonic() - begin)
    for one in hostile:
        error = one.exception()
        assert isinstance(error, grpc.RpcError) and error.code() is code and words in error.details()
    assert worst < 2.0  # the client shares this process


@contextmanager
def stalling_proxy(server_port: int) -> Iterator[tuple[int, threading.Event]]:
    """Passes one connection on; from when the event is set, nothing of what the server says."""
    stall, stop = threading.Event(), threading.Event()

    def pass_on(source: socket.socket, target: socket.socket, blocked: threading.Event | None) -> None:
        with suppress(OSError):
            while not (blocked and blocked.is_set()):
                with suppress(TimeoutError):
                    data = source.recv(65536)
                    if not data:
                        break
                    target.sendall(data)
        if blocked is not None:
            stop.wait()

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", server_port)) as server:
                server.settimeout(0.05)
                threads = [
                    threading.Thread(target=pass_on, args=arguments)
                    for arguments in ((client, server, None), (server, client, stall))
                ]
                for thread in threads:
                    thread.start()
                stop.wait()
                for each in (client, server):
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                for thread in threads:
                    thread.join()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], stall
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("public", [False, True], ids=["polling thread", "ordinary handlers"])
def test_both_ways_to_answer_are_alike(
    served_models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, public: bool
) -> None:
    """What the private parts of grpcio are relied on for, through the socket; another grpcio gets ordinary handlers.

    A release that changes what they do, and not only their names, fails here.
    """
    if public:
        monkeypatch.setattr(unary, "cygrpc", None)
    options = ServerOptions(port=0, model_name="scale", model_base_path=str(served_models / "scale"))
    with running(options) as one:
        assert one.server._grpc._unary.active is not public
        assert ("answered by grpcio's own handlers" in caplog.text) is public
        response = one.prediction.Predict(scale_request(2))
        np.testing.assert_array_equal(tf.make_ndarray(response.outputs["y"]), [[3, 6, 9], [3, 6, 9]])
        with refused(NOT_FOUND) as said:
            one.prediction.Predict(scale_request(version=7))
        assert said == ["Servable not found for request: Specific(scale, 7)"]
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
            one.prediction.Predict(predict_request("scale", {"x": np.zeros((6_000_000, 3), np.float32)}))
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
            one.prediction.Predict(scale_request(), timeout=-1)
        many = [one.prediction.Predict.future(scale_request()) for _ in range(200)]  # more than one is asked for
        assert {call.code() for call in many} == {grpc.StatusCode.OK}
        assert one.models.GetModelStatus(status_request("scale")).model_version_status
        empty = one.channel.stream_unary("/tensorflow.serving.PredictionService/Predict").future(iter(()))
        assert empty.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.CANCELLED)
        begin = time.monotonic()
        [taken_up] = taken_up_calls(one.channel, [scale_request()])
        one.server._grpc.stop(5)
        assert taken_up.code() is grpc.StatusCode.OK
        assert time.monotonic() - begin < 4  # all calls that were asked for have come back to the polling thread


def test_streams_do_not_hold_up_a_drain(served_models: Path) -> None:
    """Who watches health hears NOT_SERVING; neither that stream nor an open one of reflection is waited for."""
    states = health_pb2.HealthCheckResponse
    with running(ServerOptions(port=0, model_name="scale", model_base_path=str(served_models / "scale"))) as one:
        watched = health_pb2_grpc.HealthStub(one.channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == states.SERVING
        closed = threading.Event()
        requests = iter(lambda: closed.wait(30), True)
        reflected = ServerReflectionStub(one.channel).ServerReflectionInfo(requests)
        [in_hand] = taken_up_calls(one.channel, [predict_request("slow", {})])
        begin = time.monotonic()
        one.server._grpc.stop(10)
        assert time.monotonic() - begin < 3
        assert next(watched).status == states.NOT_SERVING
        for stream in (watched, reflected):
            with pytest.raises((grpc.RpcError, StopIteration)):
                next(stream)
        assert in_hand.code() is NOT_FOUND
        closed.set()


def test_a_port_in_use(served_models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        scale = {"model_name": "scale", "model_base_path": str(served_models / "scale")}
        for ports, flag in (
            ({"port": port}, "--port"),
            ({"port": 0, "rest_api_port": port}, "--rest_api_port"),
        ):
            server = ModelServer(ServerOptions(**ports, **scale))  # type: ignore[arg-type]
            with pytest.raises(PipelineError, match=f"in use.*{flag}"):
                server.start()
            server.stop(0)
