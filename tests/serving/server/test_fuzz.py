"""Whatever is sent, the answer is a status, the server lives, and its memory stays."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from tests.serving.conftest import Running, predict_request, scale_request

BUDGET = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
METHODS = (
    "PredictionService/Predict",
    "PredictionService/Classify",
    "PredictionService/Regress",
    "PredictionService/MultiInference",
    "PredictionService/GetModelMetadata",
    "ModelService/GetModelStatus",
    "ModelService/HandleReloadConfigRequest",
)
MAX_GROWTH_BYTES = 200 * 2**20

WHOLE = scale_request().SerializeToString()


@pytest.fixture(autouse=True)
def unharmed(model_server: Running) -> Iterator[None]:
    """After all of it the server answers as ever and has not grown much."""
    before = psutil.Process().memory_info().rss
    yield
    assert model_server.prediction.Predict(scale_request(), timeout=30).model_spec.version.value == 3
    assert psutil.Process().memory_info().rss - before < MAX_GROWTH_BYTES


def code_of(running: Running, method: str, data: bytes) -> grpc.StatusCode:
    try:
        running.channel.unary_unary(f"/tensorflow.serving.{method}")(data, timeout=30)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.INTERNAL:  # an error that nobody foresaw has this code, too
            assert error.details().startswith("the bytes are not a tensorflow.serving."), error.details()
        return error.code()
    return grpc.StatusCode.OK


def replaces_the_models(method: str, data: bytes) -> bool:
    """Whether the bytes happen to be a good ReloadConfigRequest, which the other tests would feel."""
    if not method.endswith("HandleReloadConfigRequest"):
        return False
    try:
        return ReloadConfigRequest.FromString(data).config.HasField("model_config_list")
    except DecodeError:
        return False


REFUSALS = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
}


@BUDGET
@given(method=st.sampled_from(METHODS), data=st.binary(min_size=1, max_size=200))
def test_any_bytes_to_any_method(model_server: Running, method: str, data: bytes) -> None:
    assume(not replaces_the_models(method, data))
    assert code_of(model_server, method, data) in REFUSALS | {grpc.StatusCode.INTERNAL}


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good request with one or two bytes replaced, and now and then cut off."""
    data = bytearray(WHOLE)
    for _ in range(draw(st.integers(1, 2))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    whole = draw(st.integers(0, 4)) > 0
    return bytes(data if whole else data[: draw(st.integers(1, len(data)))])


@BUDGET
@given(data=damaged())
def test_damaged_requests(model_server: Running, data: bytes) -> None:
    assert code_of(model_server, METHODS[0], data) in REFUSALS | {grpc.StatusCode.INTERNAL}


SIZES = st.one_of(st.integers(-2, 4), st.sampled_from([-(2**63), -1, 2**16, 2**31, 2**40, 2**62, 2**63 - 1]))


@st.composite
def tensors(draw: st.DrawFn) -> TensorProto:
    """Any type, any shape, any values in any of the fields; seldom do they fit each other."""
    proto = TensorProto(dtype=draw(st.sampled_from([1, 1, 1, 3, 7, 9, 10, 14, 19, 0, 24, 101, 999])))  # type: ignore[arg-type]
    for size in draw(st.lists(SIZES, max_size=4)):
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_shape.unknown_rank = draw(st.booleans()) and draw(st.booleans())
    proto.tensor_content = draw(st.one_of(st.just(b""), st.binary(max_size=48)))
    proto.float_val.extend(draw(st.lists(st.floats(width=32), max_size=4)))
    proto.string_val.extend(draw(st.lists(st.binary(max_size=4), max_size=3)))
    proto.int64_val.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)))
    proto.half_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)))
    return proto


@BUDGET
@given(tensor=tensors(), model=st.sampled_from([("scale", "x"), ("counter", "x"), ("mixed", "words")]))
def test_tensors_that_do_not_fit_themselves(model_server: Running, tensor: TensorProto, model: tuple[str, str]) -> None:
    inputs: dict[str, Any] = {model[1]: tensor}
    if model[0] == "mixed":
        inputs["numbers"] = np.zeros((1, 2), np.float32)
    request: PredictRequest = predict_request(model[0], inputs)
    assert code_of(model_server, METHODS[0], request.SerializeToString()) in REFUSALS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "b64", "numbers", "words"]), inner)
    ),
    max_leaves=12,
)
BODIES = st.one_of(
    st.binary(max_size=60),
    st.fixed_dictionaries(
        {},
        optional={"instances": JSON, "inputs": JSON, "examples": JSON, "context": JSON, "signature_name": JSON},
    ).map(lambda body: json.dumps(body).encode()),
)


@BUDGET
@given(
    model=st.sampled_from(["scale", "mixed", "examples"]),
    method=st.sampled_from(["predict", "classify", "regress"]),
    body=BODIES,
)
def test_any_json(model_server: Running, rest_connection: Any, model: str, method: str, body: bytes) -> None:
    rest_connection.request("POST", f"/v1/models/{model}:{method}", body)
    response = rest_connection.getresponse()
    answer = json.loads(response.read())
    assert response.status in (200, 400), answer
    assert (list(answer) == ["error"]) is (response.status == 400)


@pytest.fixture
def rest_connection(model_server: Running) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", model_server.server.rest_port, timeout=30)
    yield connection
    connection.close()
