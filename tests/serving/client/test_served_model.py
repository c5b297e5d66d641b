"""The client against our server, with a model that has the signatures of those the pipeline pushes."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from PIL import Image

from mnist_tfx.serving.client import Client, InvalidInput, ModelNotFound, SignatureNotFound
from tests.fixtures.any_client import MakeClient
from tests.fixtures.command import mnist_tfx
from tests.fixtures.image_model import example, noise, png, write_image_model
from tests.fixtures.server_process import ServerProcess, server_processes

VERSION = 12
IMAGES = noise(40)
PNGS = [png(image) for image in IMAGES]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_model(tmp_path_factory.mktemp("models") / str(VERSION))


@pytest.fixture(scope="module")
def replicas(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    with server_processes("kmnist", model.parent, tmp_path_factory.mktemp("server") / "log", 2) as started:
        yield started


@pytest.fixture(scope="module")
def address(replicas: list[ServerProcess]) -> str:
    """The replica that no test kills."""
    return replicas[0].address


@pytest.fixture(scope="module")
def expected(model: Path) -> dict[str, npt.NDArray[Any]]:
    """What TensorFlow computes of the model."""
    outputs = tf.saved_model.load(str(model)).signatures["images"](images=tf.constant(IMAGES))
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def test_every_signature_agrees_with_tensorflow(
    address: str, connect: MakeClient, expected: dict[str, npt.NDArray[Any]]
) -> None:
    client = connect(address, batch_size=16)
    labels = [label.decode() for label in expected["labels"]]
    answer = client.predict(IMAGES)
    np.testing.assert_allclose(answer.probabilities, expected["probabilities"], atol=1e-6)
    assert list(answer.labels) == labels
    assert set(answer.versions) == {VERSION}
    assert [one.label for one in client.classify(*PNGS)] == labels
    outputs = client.run({"examples": [example(image) for image in PNGS]}, outputs=["classes"])
    np.testing.assert_array_equal(outputs["classes"], expected["classes"], strict=True)


def test_no_images(address: str, connect: MakeClient) -> None:
    answer = connect(address).predict(np.zeros((0, 28, 28), np.uint8))
    assert answer.probabilities.shape == (0, 10) and answer.labels == ()


def test_status_metadata_and_readiness(address: str, connect: MakeClient) -> None:
    client = connect(address)
    assert client.wait_ready(10) == VERSION
    assert [(status.version, status.state) for status in client.status()] == [(VERSION, "AVAILABLE")]
    metadata = client.metadata()
    assert metadata.version == VERSION
    assert {"serving_default", "images", "encoded_images"} <= set(metadata.signatures)
    assert metadata.signatures["images"].inputs["images"].shape == (None, 28, 28, 1)


def test_errors_carry_the_servers_words(address: str, connect: MakeClient, tmp_path: Path) -> None:
    for options, words in (
        ({"model": "nobody"}, r"Servable not found for request: Latest\(nobody\)"),
        ({"version": 7}, r"Servable not found for request: Specific\(kmnist, 7\)"),
        ({"label": "canary"}, "Unrecognized servable version label: canary"),
    ):
        with pytest.raises(ModelNotFound, match=words):
            connect(address, **options).predict(np.zeros((28, 28), np.uint8))
    with pytest.raises(SignatureNotFound):
        connect(address).run({}, signature="sing")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(InvalidInput, match=r"(?s)broken\.png: .*INVALID_ARGUMENT"):
        connect(address).classify(broken)


def test_commands(address: str, expected: dict[str, npt.NDArray[Any]], tmp_path: Path) -> None:
    jpeg = tmp_path / "large.jpg"
    Image.open(io.BytesIO(PNGS[0])).resize((280, 280)).save(jpeg, quality=95)
    small = tmp_path / "small.png"
    small.write_bytes(PNGS[1])
    answer = mnist_tfx("predict", "kmnist", small, jpeg, "--address", address, "--json")
    assert answer.code == 0, answer.err
    first, second = json.loads(answer.out)
    assert first["label"].encode() == expected["labels"][1]
    assert first["probability"] == pytest.approx(float(expected["probabilities"][1].max()), abs=1e-6)
    assert second["top"][0]["probability"] == second["probability"]
    assert mnist_tfx("wait", "kmnist", "--address", address).code == 0
    answer = mnist_tfx("bench", "kmnist", "--address", address, "--duration", "0.3", "--warmup", "0.1", "--json")
    assert answer.code == 0 and json.loads(answer.out)["errors"] == {}


def test_a_replica_may_be_killed_at_work(replicas: list[ServerProcess], expected: dict[str, npt.NDArray[Any]]) -> None:
    """Four threads at work, kill -9 of one of two replicas: every call is answered, and rightly."""
    images, labels = IMAGES[:4], tuple(label.decode() for label in expected["labels"][:4])
    wrong: list[object] = []
    finished: list[int] = []
    progress, stop = threading.Condition(), threading.Event()

    def work(client: Client) -> None:
        while not stop.is_set():
            try:
                answer: object = client.predict(images).labels
            except Exception as error:
                answer = error
            if answer != labels:
                wrong.append(answer)
            with progress:
                finished.append(1)
                progress.notify()

    def wait_for(more: int) -> None:
        with progress:
            goal = len(finished) + more
            assert progress.wait_for(lambda: len(finished) >= goal, timeout=60)

    with Client("ipv4:" + ",".join(one.address for one in replicas), "kmnist") as client:
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            wait_for(200)
            replicas[1].kill()
            wait_for(200)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not wrong
