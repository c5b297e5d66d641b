"""What a request log keeps of pixels: by the client, and by the server's flag."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.serving.client import Client, InvalidOption, RequestLog
from mnist_tfx.serving.client.pixels import reduced
from mnist_tfx.serving.server.config import ServerOptions
from tests.fixtures.image_model import noise, write_image_model
from tests.serving.conftest import predict_request, running
from tests.serving.server.test_service import classification
from tests.serving.test_request_log import config_of, log_of, logged, options_of


def kept(request: PredictRequest, pixels: int | str) -> dict[str, np.ndarray]:
    """The inputs that are left, as TensorFlow reads them."""
    message = PredictRequest.FromString(reduced("predict_log", request.SerializeToString(), pixels))  # type: ignore[arg-type]
    assert message.model_spec == request.model_spec
    return {name: tf.make_ndarray(tensor) for name, tensor in message.inputs.items()}


def test_each_image_is_hashed() -> None:
    images = noise(3)
    digests = [hashlib.sha256(image.tobytes()).hexdigest().encode() for image in images]
    assert kept(predict_request("m", {"images": images}), "hash")["images.sha256"].tolist() == digests
    files = [b"a", b"b"]
    for pixels in ("hash", 4):  # an encoded image is not decoded for it
        [(name, found)] = kept(predict_request("m", {"encoded_images": files}), pixels).items()
        assert name == "encoded_images.sha256"
        assert found.tolist() == [hashlib.sha256(file).hexdigest().encode() for file in files]


def test_images_become_averages_of_blocks() -> None:
    images = noise(2)
    [(name, found)] = kept(predict_request("m", {"images": images}), 7).items()
    assert (name, found.dtype, found.shape) == ("images.7x7", np.uint8, (2, 7, 7, 1))
    expected = images.reshape(2, 7, 4, 7, 4, 1).mean(axis=(2, 4))
    assert np.abs(found - expected).max() <= 0.5
    odd = np.arange(2 * 5 * 3, dtype=np.float32).reshape(1, 5, 6, 1)[:, :, :3]
    [found] = kept(predict_request("m", {"x": odd}), 2).values()
    assert found.dtype == np.float32
    blocks = [[odd[0, :2, :1], odd[0, :2, 1:]], [odd[0, 2:, :1], odd[0, 2:, 1:]]]
    np.testing.assert_allclose(found[0, ..., 0], [[block.mean() for block in row] for row in blocks])
    [whole] = kept(predict_request("m", {"x": odd}), 64).values()
    assert whole.shape == odd.shape, "an image that is smaller stays"


def test_of_other_requests_the_model_stays() -> None:
    request = classification(0.25, signature="classify")
    found = type(request).FromString(reduced("classify_log", request.SerializeToString(), "hash"))
    assert found.model_spec == request.model_spec and not found.HasField("input")
    assert reduced("classify_log", b"as it is", "full") == b"as it is"


@pytest.mark.parametrize("pixels", ["some", 0, -1, 65])
def test_what_is_no_choice_is_refused(tmp_path: Path, pixels: int | str) -> None:
    with pytest.raises(InvalidOption, match="full, hash"):
        RequestLog(tmp_path, pixels=pixels)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="request_log_pixels"):
        ServerOptions(request_log_pixels=str(pixels)).request_log_limits()


def test_the_server_and_the_client_keep_what_they_are_told_to(tmp_path: Path) -> None:
    write_image_model(tmp_path / "models" / "m" / "1")
    options = options_of(tmp_path, config_of(tmp_path / "models", m=log_of(tmp_path / "log")))
    images = noise(2)
    log = RequestLog(tmp_path, pixels=4)
    with running(ServerOptions(**{**vars(options), "request_log_pixels": "hash"})) as one:
        with Client(f"127.0.0.1:{one.server.grpc_port}", "m", log=log) as client:
            client.predict(images)
        log.close()
    [by_server], [by_client] = logged(tmp_path), logged(tmp_path, "requests")
    assert list(by_server.predict_log.request.inputs) == ["images.sha256"]
    assert list(by_client.predict_log.request.inputs) == ["images.4x4"]
    assert by_server.predict_log.response.outputs.keys() == {"probabilities", "classes", "labels"}
    assert images.tobytes() not in by_server.SerializeToString() + by_client.SerializeToString()
