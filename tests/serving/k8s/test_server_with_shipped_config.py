"""Our own server, started with the flags of the Deployment and the files of its ConfigMap."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from serving.server.config import ServerOptions
from serving.server.flags import FLAGS, WITHOUT_EFFECT, add_flags, as_options, given_flags
from serving.server.main import ModelServer
from tests.fixtures.manifests import K8S, OVERLAYS, Rendered, render

MODELS = ("fashion_mnist", "mnist")
ADAPTER_VALUES = K8S / "components" / "autoscaling" / "prometheus-adapter-values.yaml"


class Darkness(tf.Module):
    """A stand-in with the signature `images` of the pushed models: how dark and how bright each image is."""

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28, 1], tf.uint8, name="images")])
    def images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        bright = tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2, 3]) / 255
        return {"probabilities": tf.stack([1 - bright, bright], axis=1)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the volume holds: a version of each model."""
    folder = tmp_path_factory.mktemp("models")
    module = Darkness()
    tf.saved_model.save(module, str(folder / "mnist" / "1"), signatures={"images": module.images})
    shutil.copytree(folder / "mnist", folder / "fashion_mnist")
    return folder


@contextmanager
def started(rendered: Rendered, models: Path, folder: Path, ssl_config: Path | None = None) -> Iterator[ModelServer]:
    """Serves with the Deployment's flags and mounted files; only ports and paths are this machine's."""
    for path, text in rendered.mounted_files().items():
        (folder / Path(path).name).write_text(text.replace('"/models/', f'"{models}/'))
    parser = argparse.ArgumentParser()
    add_flags(parser)
    known = [argument for argument in rendered.server["args"] if argument.removeprefix("--").split("=")[0] in FLAGS]
    flags = given_flags(parser.parse_args([argument.replace("=/config/", f"={folder}/") for argument in known]))
    flags |= {"port": 0, "rest_api_port": -1}
    if ssl_config is not None:
        flags["ssl_config_file"] = str(ssl_config)
    server = ModelServer(ServerOptions(**as_options(flags)))
    server.start()
    try:
        yield server
    finally:
        server.stop(grace_seconds=1)


def wait_ready(server: ModelServer, folder: Path) -> None:
    """Runs the startup probe until it succeeds."""
    deadline = time.monotonic() + 60
    while True:
        probe = subprocess.run(
            ["/bin/bash", folder / "models_available.sh", folder / "models.config", str(server.rest_port)],
            capture_output=True,
            text=True,
        )
        if probe.returncode == 0:
            return
        assert time.monotonic() < deadline, probe.stdout
        time.sleep(0.02)


def predict(channel: grpc.Channel, model: str, images: np.ndarray) -> PredictResponse:
    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, "images"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(images))
    return PredictionServiceStub(channel).Predict(request, timeout=20)


def metrics_of(server: ModelServer) -> str:
    url = f"http://127.0.0.1:{server.rest_port}{server.options.monitoring().path}"
    return urllib.request.urlopen(url, timeout=20).read().decode()


def images(count: int) -> np.ndarray:
    return np.full((count, 28, 28, 1), 255, np.uint8)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_deployments_flags_are_known(overlay: str) -> None:
    assert render(overlay).flags.keys() <= FLAGS.keys() | WITHOUT_EFFECT.keys()
