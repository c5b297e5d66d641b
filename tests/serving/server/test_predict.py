"""Predict over a socket: answers, and every row of TF Serving's error table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from mnist_tfx.serving.server.config import ServerOptions
from tests.serving.conftest import Running, predict_request, refused, running, scale_request

STEPS = predict_request("slow", {"steps": np.array([200_000, 1], np.int64)})  # about half a second
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def test_answers_with_the_resolved_model_spec_in_typed_fields(model_server: Running) -> None:
    response = model_server.prediction.Predict(scale_request(2))
    assert response.model_spec.name == "scale"
    assert response.model_spec.version.value == 3
    assert response.model_spec.signature_name == "serving_default"
    assert not response.outputs["y"].tensor_content
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["y"]), [[3, 6, 9], [3, 6, 9]])
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["factor"]), [3, 3])


@pytest.mark.parametrize(("spec", "version"), [({"version": 2}, 2), ({"label": "stable"}, 2), ({"label": "canary"}, 3)])
def test_a_version_or_a_label_chooses_who_answers(model_server: Running, spec: dict, version: int) -> None:
    response = model_server.prediction.Predict(scale_request(**spec))
    assert response.model_spec.version.value == version
    assert tf.make_ndarray(response.outputs["factor"]) == version


def test_output_filter_leaves_the_rest_out(model_server: Running) -> None:
    request = scale_request()
    request.output_filter.append("factor")
    assert list(model_server.prediction.Predict(request).outputs) == ["factor"]


def test_many_types_and_inputs(model_server: Running) -> None:
    inputs = {"numbers": np.array([[1, 2], [-1, 0]], np.float32), "words": np.array([b"a\xff", b""], object)}
    outputs = model_server.prediction.Predict(predict_request("mixed", inputs)).outputs
    arrays = {name: tf.make_ndarray(tensor) for name, tensor in outputs.items()}
    np.testing.assert_array_equal(arrays["doubled"], [[2, 4], [-2, 0]])
    assert arrays["word"].tolist() == [b"a\xff", b""]
    assert arrays["positive"].tolist() == [True, False]
    assert arrays["size"].tolist() == [2, 0] and arrays["size"].dtype == np.int64


def test_an_empty_batch_has_an_empty_answer(model_server: Running) -> None:
    assert tf.make_ndarray(model_server.prediction.Predict(scale_request(0)).outputs["y"]).shape == (0, 3)


def test_not_a_number_goes_through(model_server: Running) -> None:
    x = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    response = model_server.prediction.Predict(predict_request("scale", {"x": x}))
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["y"]), x)


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (predict_request("nobody", {}), NOT_FOUND, "Servable not found for request: Latest(nobody)"),
        (scale_request(version=7), NOT_FOUND, "Servable not found for request: Specific(scale, 7)"),
        (PredictRequest(), INVALID, "Missing ModelSpec"),
        (predict_request("", {}), INVALID, "ModelSpec has no name specified."),
        (scale_request(label="x"), INVALID, "Unrecognized servable version label: x"),
        (
            predict_request("scale", {}, signature="s"),
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "s" not found.',
        ),
        (predict_request("scale", {}), INVALID, "Missing but required: {x}."),
        (predict_request("scale", {"x": [1.0], "z": [1.0]}), INVALID, "Sent extra: {z}."),
        (predict_request("scale", {"z": [1.0]}), INVALID, "Sent extra: {z}. Missing but required: {x}."),
        (
            predict_request("scale", {"x": TensorProto(dtype=1, tensor_content=b"123")}),
            INVALID,
            "tensor parsing error: x",
        ),
        (
            predict_request("scale", {"x": np.zeros((1, 3), np.int32)}),
            INVALID,
            "Expects arg[0] to be float but int32 is provided",
        ),
        (
            predict_request("examples", {"inputs": [b""]}, "regress"),
            INVALID,
            "Feature: x (data type: float) is required",
        ),
    ],
    ids=str,
)
def test_error_table(model_server: Running, request_: PredictRequest, code: grpc.StatusCode, words: str) -> None:
    with refused(code) as said:
        model_server.prediction.Predict(request_)
    assert words in said[0]


def test_a_wrong_shape_is_the_kernels_matter(model_server: Running) -> None:
    inputs = {"numbers": np.zeros(3, np.float32), "words": np.array([b"a", b"b", b"c"], object)}
    with refused(INVALID) as said:
        model_server.prediction.Predict(predict_request("mixed", inputs))
    assert "reduction" in said[0].lower() or "dimension" in said[0].lower()


@pytest.mark.parametrize("aliases", [["nothing"], ["y", "y"]])
def test_output_filter_with_an_unknown_or_repeated_alias(model_server: Running, aliases: list[str]) -> None:
    request = scale_request()
    request.output_filter.extend(aliases)
    with refused(INVALID) as said:
        model_server.prediction.Predict(request)
    assert aliases[0] in said[0] and "output tensor alias" in said[0]


def test_messages_are_cut(model_server: Running) -> None:
    with refused(NOT_FOUND) as said:
        model_server.prediction.Predict(predict_request("ä" * 5000, {}))
    assert said[0].startswith("Servable not found for request: Latest(ä") and len(said[0]) <= 1024


ONE_AT_A_TIME = """
max_batch_size { value: 2 } max_enqueued_batches { value: 1 } num_batch_threads { value: 1 }
batch_timeout_micros { value: 0 }
"""


@pytest.fixture(scope="module")
def one_at_a_time(served_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serves slow and counter, batches of at most 2 rows, one computed and one waiting."""
    folder = tmp_path_factory.mktemp("one_at_a_time")
    (folder / "batching.config").write_text(ONE_AT_A_TIME)
    models = "".join(
        f'config {{ name: "{name}" base_path: "{served_models / name}" model_platform: "tensorflow" }}'
        for name in ("slow", "counter")
    )
    (folder / "models.config").write_text(f"model_config_list {{ {models} }}")
    options = ServerOptions(
        port=0,
        model_config_file=str(folder / "models.config"),
        enable_batching=True,
        batching_parameters_file=str(folder / "batching.config"),
    )
    with running(options) as one:
        yield one


def test_batch_over_the_limit(one_at_a_time: Running) -> None:
    with refused(INVALID) as said:
        one_at_a_time.prediction.Predict(predict_request("slow", {"steps": np.zeros(3, np.int64)}))
    assert "batch size" in said[0]


def test_queue_full(one_at_a_time: Running) -> None:
    calls = [one_at_a_time.prediction.Predict.future(STEPS) for _ in range(8)]
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    refusal = calls[codes.index(grpc.StatusCode.UNAVAILABLE)]
    assert "queue" in refusal.details() and "full" in refusal.details()


def test_an_expired_request_is_not_computed(one_at_a_time: Running) -> None:
    count = predict_request("counter", {"x": np.zeros((1, 1), np.float32)})
    before = tf.make_ndarray(one_at_a_time.prediction.Predict(count).outputs["calls"])
    busy = one_at_a_time.prediction.Predict.future(STEPS)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        one_at_a_time.prediction.Predict(count, timeout=0.1)
    assert not busy.done()
    busy.result()
    after = tf.make_ndarray(one_at_a_time.prediction.Predict(count).outputs["calls"])
    assert after == before + 1


def test_tensor_content_where_asked_for(served_models: Path) -> None:
    options = ServerOptions(
        port=0,
        model_name="scale",
        model_base_path=str(served_models / "scale"),
        enable_serialization_as_tensor_content=True,
    )
    with running(options) as one:
        y = one.prediction.Predict(scale_request()).outputs["y"]
    assert y.tensor_content and not y.float_val
    np.testing.assert_array_equal(tf.make_ndarray(y), [[3, 6, 9]])
