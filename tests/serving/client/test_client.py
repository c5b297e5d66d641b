"""Predict, classify, run, metadata and status, of both clients, over a socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from mnist_tfx.serving.client import (
    AsyncClient,
    ClassScore,
    Client,
    InvalidInput,
    InvalidOption,
    MalformedAnswer,
    ModelNotFound,
    ServingClientError,
    SignatureNotFound,
)
from tests.fixtures.any_client import MakeClient
from tests.fixtures.reference_server import (
    AVAILABLE,
    LOADING,
    MODEL,
    ReferenceServer,
    class_of,
    probabilities_of,
    signature_defs,
)

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"


def pictures(count: int) -> npt.NDArray[np.uint8]:
    """uint8 [count, 28, 28, 1] of which any two differ."""
    return np.random.default_rng(7).integers(0, 256, (count, 28, 28, 1)).astype(np.uint8)


def classes_of(images: Any) -> list[int]:
    return [class_of(image.tobytes()) for image in images]


@pytest.mark.parametrize("as_content", [False, True])
def test_predict(server: ReferenceServer, connect: MakeClient, as_content: bool) -> None:
    server.as_content = as_content
    images = pictures(5)
    answer = connect(server).predict(images)
    assert answer.classes.tolist() == classes_of(images)
    assert answer.labels == tuple(f"name {one}" for one in classes_of(images))
    assert answer.versions == (3,) * 5
    assert answer.probabilities.dtype == np.float32 and answer.classes.dtype == np.int64
    np.testing.assert_array_equal(answer.probabilities, probabilities_of(answer.classes))


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (1, 28, 28), (1, 28, 28, 1)], ids=str)
def test_shapes_of_one_image(server: ReferenceServer, connect: MakeClient, shape: tuple[int, ...]) -> None:
    image = pictures(1)
    assert connect(server).predict(image.reshape(shape)).classes.tolist() == classes_of(image)


def test_28_images_without_channel_are_28_images(server: ReferenceServer, connect: MakeClient) -> None:
    images = pictures(28)
    assert connect(server).predict(images[..., 0]).classes.tolist() == classes_of(images)


def test_no_image(server: ReferenceServer, connect: MakeClient) -> None:
    answer = connect(server).predict(np.zeros((0, 28, 28), np.uint8))
    assert len(answer) == 0 and answer.probabilities.shape == (0, 10) and server.batches == [0]


@pytest.mark.parametrize(
    ("scaled", "white"),
    [(pictures(4).astype(np.float32) / 255, 1.0), (pictures(4).astype(np.float64), 255.0)],
    ids=["to 1", "to 255"],
)
def test_floats_with_white(server: ReferenceServer, connect: MakeClient, scaled: Any, white: float) -> None:
    assert connect(server).predict(scaled, white=white).classes.tolist() == classes_of(pictures(4))


def test_whole_numbers_of_any_type(server: ReferenceServer, connect: MakeClient) -> None:
    client = connect(server)
    for image in (pictures(1).astype(np.int64), pictures(1)[0, ..., 0].tolist()):
        assert client.predict(image).classes.tolist() == classes_of(pictures(1))


@pytest.mark.parametrize(
    ("images", "white", "words"),
    [
        (np.zeros((28, 28), np.float32), None, r"white=1.0.*white=255.0"),
        (np.full((28, 28), 1.5), 1.0, "0.*to 1.5"),
        (np.full((28, 28), -0.5), 255.0, "-0.5"),
        (np.full((28, 28), np.nan), 1.0, "nan"),
        (np.zeros((28, 28)), 0.0, "white"),
        (np.zeros((28, 28), np.uint8), 1.0, "uint8"),
        (np.full((28, 28), 256), None, "256"),
        (np.full((28, 28), True), None, "bool"),
        (np.zeros((32, 32), np.uint8), None, r"\[1, 32, 32, 1\].*uint8 \[\?, 28, 28, 1\]"),
        (np.zeros((2, 28, 28, 3), np.uint8), None, r"\[2, 28, 28, 3\]"),
        (np.zeros(784, np.uint8), None, r"\[784\]"),
        ([[1, 2], [3]], None, "makes no array: .*inhomogeneous"),
    ],
)
def test_images_that_do_not_fit_are_not_sent(
    server: ReferenceServer, connect: MakeClient, images: Any, white: float | None, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        connect(server).predict(images, white=white)
    assert server.batches == []


def test_models_of_another_dtype_and_size(server: ReferenceServer, connect: MakeClient) -> None:
    server.signatures = signature_defs(tf.float32, side=4)
    client = connect(server)
    image = np.ones((4, 4), np.float32)
    assert client.predict(image).classes.tolist() == [class_of(image.tobytes())]
    with pytest.raises(InvalidInput, match="float32, not uint8"):
        client.predict(image.astype(np.uint8))


def test_large_inputs_go_in_batches(server: ReferenceServer, connect: MakeClient) -> None:
    images = pictures(20)
    answer = connect(server, batch_size=8).predict(images)
    assert answer.classes.tolist() == classes_of(images)
    assert sorted(server.batches) == [4, 8, 8]


def test_streams_keep_order_and_bounds(server: ReferenceServer, connect: MakeClient) -> None:
    server.delay = 0.02
    images, read = pictures(60), []

    def parts() -> Any:
        start = 0
        for size in (1, 3, 0, 30, 26):
            read.append(size)
            yield images[start : start + size]
            start += size

    answers = list(connect(server, batch_size=8, in_flight=2).predict_stream(parts()))
    assert [len(answer) for answer in answers] == [8] * 7 + [4]
    assert [label for answer in answers for label in answer.labels] == [f"name {one}" for one in classes_of(images)]
    assert server.most_at_once == 2


def test_streams_of_one_buffer_that_is_filled_again(server: ReferenceServer, connect: MakeClient) -> None:
    images, buffer = pictures(9), np.empty((3, 28, 28, 1), np.uint8)

    def frames() -> Any:
        for start in range(0, 9, 3):
            buffer[:] = images[start : start + 3]
            yield buffer

    answers = connect(server, batch_size=3).predict_stream(frames())
    assert [one for answer in answers for one in answer.classes] == classes_of(images)


def test_a_stream_ends_with_its_source(server: ReferenceServer, connect: MakeClient) -> None:
    def broken() -> Any:
        yield pictures(8)
        raise OSError("camera unplugged")

    with pytest.raises(OSError, match="camera unplugged"):
        list(connect(server, batch_size=2, in_flight=2).predict_stream(broken()))


def test_predictions_are_a_sequence(server: ReferenceServer, connect: MakeClient) -> None:
    images = pictures(3)
    answer = connect(server).predict(images)
    one = answer[1]
    assert (one.index, one.label, one.version) == (classes_of(images)[1], answer.labels[1], 3)
    assert one.probability == pytest.approx(max(answer.probabilities[1]))
    assert [score.index for score in one.top] == [(one.index + step) % 10 for step in range(10)]
    assert [part.label for part in answer[1:]] == list(answer.labels[1:])


def test_classify_files_and_bytes(server: ReferenceServer, connect: MakeClient, tmp_path: Path) -> None:
    path = tmp_path / "boot.png"
    path.write_bytes(PNG + b"!")
    first, second, third = connect(server, batch_size=2).classify(path, str(path), JPEG, top=2)
    assert first == second
    assert (first.index, first.label, first.version) == (9, "name 9", 3)
    best, next_best = probabilities_of([9])[0][[9, 0]].tolist()
    assert first.top == (ClassScore(9, best, "name 9"), ClassScore(0, next_best, None))
    assert third.index == 4
    assert server.batches == [2, 1]


def test_class_names_label_the_runners_up(server: ReferenceServer, connect: MakeClient) -> None:
    client = connect(server, class_names=[f"class {one}" for one in range(10)])
    [answer] = client.classify(JPEG)
    assert [score.label for score in answer.top] == ["name 4", "class 5", "class 6"]


def test_no_files(server: ReferenceServer, connect: MakeClient) -> None:
    assert connect(server).classify() == []


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("missing.png", "missing.png: No such file"),
        (b"RIFF\0\0\0\0WEBP", "neither PNG nor JPEG"),
        (b"", "begins with nothing"),
        ("zero\0byte.png", "neither a path nor"),
        (3, "neither a path nor"),
    ],
)
def test_files_that_are_no_images_are_not_sent(
    server: ReferenceServer, connect: MakeClient, image: Any, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        connect(server).classify(image)
    assert server.batches == []


def test_the_file_that_the_server_cannot_decode_is_named(
    server: ReferenceServer, connect: MakeClient, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(PNG)
    bad.write_bytes(PNG + b"broken")
    with pytest.raises(InvalidInput, match=r"bad\.png: Unknown image file format") as raised:
        connect(server).classify(good, bad, good)
    assert raised.value.details == "Unknown image file format."


def test_encoded_batches_stay_below_the_message_limit(server: ReferenceServer, connect: MakeClient) -> None:
    connect(server).classify(*[PNG + bytes(1 << 20)] * 5)
    assert server.batches == [2, 2, 1]


def test_run_any_signature(server: ReferenceServer, connect: MakeClient) -> None:
    client = connect(server)
    x = np.array([[1, 2], [3, 4]], np.float32)
    answer = client.run({"x": x}, signature="double")
    np.testing.assert_array_equal(answer["y"], x * 2, strict=True)
    answer = client.run({"encoded_images": [JPEG, JPEG + b"\0"]}, signature="encoded_images", outputs=["labels"])
    assert answer.keys() == {"labels"} and answer["labels"].tolist() == [b"name 4", b"name 5"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": np.zeros((1, 2))}, r"'x'.*float32 \[\?, 2\]; got dtype float64"),
        ({"x": np.zeros((1, 3), np.float32)}, r"got shape \[1, 3\]"),
        ({"z": np.zeros(1)}, "unknown: z; missing: x.*x "),
        ({"x": [[1.0, 2.0], [3.0]]}, "makes no array: .*inhomogeneous"),
    ],
)
def test_inputs_that_do_not_fit_are_not_sent(
    server: ReferenceServer, connect: MakeClient, inputs: Any, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        connect(server).run(inputs, signature="double")
    assert server.batches == []


def test_inputs_with_a_default_may_be_left_out(server: ReferenceServer, connect: MakeClient) -> None:
    definitions = signature_defs()
    definitions["double"].inputs["temperature"].CopyFrom(definitions["double"].inputs["x"])
    definitions["double"].defaults["temperature"].dtype = 1
    server.signatures = definitions
    assert connect(server).run({"x": np.ones((1, 2), np.float32)}, signature="double")["y"].tolist() == [[2, 2]]


def test_unknown_signatures(server: ReferenceServer, connect: MakeClient) -> None:
    client = connect(server)
    with pytest.raises(SignatureNotFound, match="'images_'; it has: double, encoded_images, images"):
        client.run({}, signature="images_")
    server.signatures = {"images": signature_defs()["double"]}
    with pytest.raises(SignatureNotFound, match=r"not an image classifier's.*run\(\)"):
        connect(server).predict(pictures(1))


def test_metadata(server: ReferenceServer, connect: MakeClient) -> None:
    metadata = connect(server).metadata()
    assert (metadata.name, metadata.version) == ("kmnist", 3)
    images = metadata.signatures["images"]
    assert (images.inputs["images"].dtype, images.inputs["images"].shape) == (np.uint8, (None, 28, 28, 1))
    assert str(images.outputs["labels"]) == "string [?]"


def test_metadata_is_fetched_once_a_version(server: ReferenceServer, connect: MakeClient) -> None:
    client = connect(server)
    for _ in range(3):
        client.predict(pictures(1))
    assert server.metadata_calls == 1
    server.states = {4: AVAILABLE}
    for _ in range(3):
        assert client.predict(pictures(1)).versions == (4,)
    assert server.metadata_calls == 2


def test_a_new_version_may_take_other_images(server: ReferenceServer, connect: MakeClient) -> None:
    client = connect(server)
    client.predict(pictures(1))
    server.states, server.signatures = {4: AVAILABLE}, signature_defs(side=32)
    image = np.zeros((32, 32), np.uint8)
    assert client.predict(image).versions == (4,)


def test_pinning(server: ReferenceServer, connect: MakeClient) -> None:
    server.states, server.labels = {2: AVAILABLE, 3: AVAILABLE}, {"stable": 2}
    for options, version in (({}, 3), ({"version": 2}, 2), ({"label": "stable"}, 2)):
        client = connect(server, **options)
        assert client.predict(pictures(1)).versions == (version,)
        assert client.metadata().version == version
    assert [status.version for status in connect(server, version=2).status()] == [2]


def test_status(server: ReferenceServer, connect: MakeClient) -> None:
    server.states = {3: AVAILABLE, 4: LOADING}
    newest, oldest = connect(server).status()
    assert (newest.version, newest.state, newest.available, newest.error_code) == (4, "LOADING", False, "OK")
    assert (oldest.version, oldest.available) == (3, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "nobody"}, r"Servable not found for request: Latest\(nobody\) \(NOT_FOUND from 127"),
        ({"version": 9}, r"Specific\(kmnist, 9\)"),
        ({"label": "canary"}, "Unrecognized servable version label: canary"),
    ],
)
def test_unknown_models(server: ReferenceServer, connect: MakeClient, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelNotFound, match=words) as raised:
        connect(server, **options).predict(pictures(1))
    assert raised.value.code is not None and raised.value.details in str(raised.value)


def test_answers_that_break_the_contract(server: ReferenceServer, connect: MakeClient) -> None:
    client = connect(server)
    client.predict(pictures(1))
    server._outputs = lambda *_: {"labels": np.array([b"a", b"b"], object)}  # type: ignore[method-assign]
    with pytest.raises(MalformedAnswer, match="labels"):
        client.predict(pictures(1))
    for none_of_them in (np.array([10]), np.array([-1]), np.array([1.0])):
        outputs = {"labels": np.array([b"a"], object), "classes": none_of_them, "probabilities": probabilities_of([1])}
        server._outputs = lambda *_, outputs=outputs: outputs  # type: ignore[method-assign]
        with pytest.raises(MalformedAnswer, match="classes are not among its 10 probabilities"):
            client.predict(pictures(1))
    good = {
        "labels": np.array([b"a", b"b"], object),
        "classes": np.array([1, 2]),
        "probabilities": np.eye(2, dtype="f4"),
    }
    for name, wrong, words in (
        ("labels", np.array([1, 2]), "labels no strings"),
        ("labels", np.array(b"a", object), "and 1 labels"),
        ("probabilities", np.eye(2, dtype=np.int64), "probabilities are no floats"),
    ):
        server._outputs = lambda *_, outputs={**good, name: wrong}: outputs  # type: ignore[method-assign]
        with pytest.raises(MalformedAnswer, match=words):
            client.predict(pictures(2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"version": 1, "label": "stable"}, "exclude each other"),
        ({"batch_size": 0}, "batch_size"),
        ({"in_flight": 0}, "in_flight"),
        ({"timeout": 0}, "timeout"),
        ({"model": ""}, "name is empty"),
        ({"model": "\udc80"}, "cannot be asked for"),
        ({"version": 2**63}, "cannot be asked for .*64-bit"),
        ({"version": "3"}, "cannot be asked for"),
        ({"label": 3}, "cannot be asked for"),
    ],
)
def test_options_out_of_range(connect: MakeClient, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        connect("localhost", **options)


def test_a_closed_client_says_so(server: ReferenceServer) -> None:
    with Client(f"127.0.0.1:{server.port}", MODEL) as client:
        client.predict(pictures(1))
    for call in (
        lambda: client.predict(pictures(1)),
        lambda: list(client.predict_stream(pictures(1))),
        lambda: client.classify(b"\xff\xd8\xff"),
        client.status,
        client.metadata,
        lambda: client.wait_ready(1),
    ):
        with pytest.raises(ServingClientError, match="client is closed"):
            call()


def test_a_closed_async_client_says_so(server: ReferenceServer) -> None:
    async def use() -> None:
        async with AsyncClient(f"127.0.0.1:{server.port}", MODEL) as client:
            await client.predict(pictures(1))
        with pytest.raises(ServingClientError, match="client is closed"):
            await client.predict(pictures(1))

    asyncio.run(use())
