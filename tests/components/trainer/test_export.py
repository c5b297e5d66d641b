"""The exported SavedModel: the contract of its signatures in DESIGN.md."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from mnist_tfx.components.code_version import code_version
from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.settings import ModelSettings
from mnist_tfx.components.trainer.dense import build_model
from mnist_tfx.components.trainer.export import ServingModule, export_model
from mnist_tfx.components.transform.preprocessing import Normalization
from mnist_tfx.contract.names import METADATA_PATH
from tests.fixtures.tiny_run import SPLIT_SIZES, TinyRun, decode, read_split

CLASSES = tuple("abcdefghij")
SHAPE = (28, 28, 1)
SIGNATURES = {"serving_default": "examples", "images": "images", "encoded_images": "encoded_images"}
Outputs = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Exported:
    """A Keras model and the SavedModel made of it, loaded."""

    model: keras.Model
    normalization: Normalization
    folder: Path
    loaded: Any

    def call(self, signature: str, values: Any) -> Outputs:
        """Calls a signature by the name of its one input."""
        outputs = self.loaded.signatures[signature](**{SIGNATURES[signature]: tf.constant(values)})
        return {name: tensor.numpy() for name, tensor in outputs.items()}


@pytest.fixture(scope="module")
def exported(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A model with batch normalization and dropout, which act differently in training, on the tiny Transform graph."""
    keras.utils.set_random_seed(1)
    settings = ModelSettings(hidden_layers=(16,), batch_normalization=True, dropout=0.5)
    model = build_model(settings, SHAPE, len(CLASSES))
    graph = tft.TFTransformOutput(str(tiny_run.transform_graph))
    normalization = Normalization.of_graph(graph, SHAPE)
    folder = tmp_path_factory.mktemp("exported")
    export_model(ServingModule(model, graph, normalization, CLASSES, SHAPE), str(folder), {"dataset": "kmnist"})
    return Exported(model, normalization, folder, tf.saved_model.load(str(folder)))


@pytest.fixture(scope="module")
def encoded(tiny_run: TinyRun) -> list[bytes]:
    """The images of split test as PNG."""
    return [image for image, _ in read_split(tiny_run.examples, "test")]


@pytest.fixture(scope="module")
def images(encoded: list[bytes]) -> npt.NDArray[np.uint8]:
    """The same, decoded."""
    return decode(encoded)


def example(image: bytes, **labels: int) -> bytes:
    """A serialized tf.Example."""
    made = tf.train.Example()
    made.features.feature["image"].bytes_list.value.append(image)
    for name, label in labels.items():
        made.features.feature[name].int64_list.value.append(label)
    return made.SerializeToString()


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_there_are_three_signatures_with_one_input_each(exported: Exported) -> None:
    assert set(exported.loaded.signatures) == set(SIGNATURES)
    inputs = {name: exported.loaded.signatures[name].structured_input_signature[1] for name in SIGNATURES}
    assert {
        name: {key: (spec.dtype, spec.shape.as_list()) for key, spec in specs.items()} for name, specs in inputs.items()
    } == {
        "serving_default": {"examples": (tf.string, [None])},
        "images": {"images": (tf.uint8, [None, 28, 28, 1])},
        "encoded_images": {"encoded_images": (tf.string, [None])},
    }


def test_outputs_have_the_types_and_shapes_of_the_contract(
    exported: Exported, encoded: list[bytes], images: npt.NDArray[np.uint8]
) -> None:
    for signature in SIGNATURES:
        specs = exported.loaded.signatures[signature].structured_outputs
        assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in specs.items()} == {
            "probabilities": (tf.float32, [None, 10]),
            "classes": (tf.int64, [None]),
            "labels": (tf.string, [None]),
        }


def test_all_signatures_answer_as_the_keras_model_does_on_normalized_pixels(
    exported: Exported, encoded: list[bytes], images: npt.NDArray[np.uint8]
) -> None:
    logits = np.asarray(exported.model(exported.normalization(images), training=False))
    expected = softmax(logits)
    assert len(set(expected.argmax(axis=1))) > 2  # the model tells images apart
    answers = {
        "serving_default": exported.call("serving_default", [example(image) for image in encoded]),
        "images": exported.call("images", images),
        "encoded_images": exported.call("encoded_images", encoded),
    }
    for outputs in answers.values():
        np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
        np.testing.assert_array_equal(outputs["classes"], outputs["probabilities"].argmax(axis=1))
        assert [label.decode() for label in outputs["labels"]] == [CLASSES[i] for i in outputs["classes"]]
    for outputs in answers.values():
        np.testing.assert_allclose(outputs["probabilities"], answers["images"]["probabilities"], atol=1e-5)


def test_tf_servings_loader_restores_what_was_trained_and_nothing_else(
    tiny_run: TinyRun, encoded: list[bytes], images: npt.NDArray[np.uint8]
) -> None:
    folder = str(tiny_run.model)
    expected = tf.saved_model.load(folder).signatures["images"](tf.constant(images))["probabilities"]
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def
        for name, values in (("images", images), ("encoded_images", encoded)):
            signature = signatures[name]
            answer = session.run(
                signature.outputs["probabilities"].name, {signature.inputs[SIGNATURES[name]].name: values}
            )
            np.testing.assert_allclose(answer, expected, atol=1e-5)
    variables = [name for name, _ in tf.train.list_variables(os.path.join(folder, "variables", "variables"))]
    assert variables and not [name for name in variables if "optimizer" in name]
    saved = saved_model_pb2.SavedModel.FromString((tiny_run.model / "saved_model.pb").read_bytes())
    objects = [node.user_object.identifier for node in saved.meta_graphs[0].object_graph_def.nodes]
    assert objects and not [identifier for identifier in objects if "keras" in identifier]


@pytest.mark.parametrize(
    ("signature", "nothing"),
    [
        ("serving_default", np.empty(0, object)),
        ("images", np.empty((0, 28, 28, 1), np.uint8)),
        ("encoded_images", np.empty(0, object)),
    ],
)
def test_a_batch_of_0_is_answered_with_0_rows(exported: Exported, signature: str, nothing: Any) -> None:
    values = tf.constant(nothing, tf.uint8 if signature == "images" else tf.string)
    outputs = exported.call(signature, values)
    assert outputs["probabilities"].shape == (0, 10) and outputs["probabilities"].dtype == np.float32
    assert outputs["classes"].shape == (0,) and outputs["classes"].dtype == np.int64
    assert outputs["labels"].shape == (0,)


def test_one_image_is_answered_as_in_a_batch(exported: Exported, images: npt.NDArray[np.uint8]) -> None:
    alone, together = exported.call("images", images[3:4]), exported.call("images", images)
    np.testing.assert_allclose(alone["probabilities"][0], together["probabilities"][3], atol=1e-6)


def test_serving_default_does_not_look_at_a_label(exported: Exported, encoded: list[bytes]) -> None:
    without = exported.call("serving_default", [example(image) for image in encoded[:5]])
    with_label = exported.call("serving_default", [example(image, label=9) for image in encoded[:5]])
    np.testing.assert_array_equal(without["probabilities"], with_label["probabilities"])


def resized(image: npt.NDArray[np.uint8], factor: int, save: Callable[[Image.Image, io.BytesIO], None]) -> bytes:
    """The image, enlarged by repeating pixels and saved by Pillow."""
    stream = io.BytesIO()
    save(Image.fromarray(np.kron(image[..., 0], np.ones((factor, factor), np.uint8))), stream)
    return stream.getvalue()


def test_encoded_images_takes_png_of_another_size(exported: Exported, images: npt.NDArray[np.uint8]) -> None:
    larger = [resized(image, 3, lambda picture, stream: picture.save(stream, "PNG")) for image in images[:20]]
    # The mean over blocks of equal pixels is the pixel: an area filter gives back the original.
    np.testing.assert_allclose(
        exported.call("encoded_images", larger)["probabilities"],
        exported.call("images", images[:20])["probabilities"],
        atol=1e-5,
    )


def test_encoded_images_takes_jpeg_and_colour_of_other_sizes(exported: Exported, images: npt.NDArray[np.uint8]) -> None:
    jpeg = [
        resized(image, 4, lambda picture, stream: picture.save(stream, "JPEG", quality=95)) for image in images[:20]
    ]
    colour = [
        resized(image, 2, lambda picture, stream: picture.convert("RGB").save(stream, "PNG")) for image in images[:20]
    ]
    expected = exported.call("images", images[:20])["probabilities"]
    for encoded in (jpeg, colour):
        np.testing.assert_allclose(exported.call("encoded_images", encoded)["probabilities"], expected, atol=0.05)


def test_encoded_images_takes_images_of_different_sizes_in_one_batch(exported: Exported) -> None:
    sizes = [(1, 1), (28, 28), (17, 91), (300, 200)]
    streams = [io.BytesIO() for _ in sizes]
    for size, stream in zip(sizes, streams, strict=True):
        Image.new("L", size, 255).save(stream, "PNG")
    outputs = exported.call("encoded_images", [stream.getvalue() for stream in streams])
    white = exported.call("images", np.full((1, 28, 28, 1), 255, np.uint8))
    np.testing.assert_allclose(outputs["probabilities"], np.repeat(white["probabilities"], 4, axis=0), atol=1e-6)


@pytest.mark.parametrize("signature", ["serving_default", "encoded_images"])
def test_what_is_no_image_is_refused(exported: Exported, signature: str) -> None:
    value = example(b"no image") if signature == "serving_default" else b"no image"
    with pytest.raises(tf.errors.InvalidArgumentError):
        exported.call(signature, [value])


def test_the_folder_holds_its_metadata(exported: Exported) -> None:
    assert read_metadata(str(exported.folder)) == {
        "metadata_version": 1,
        "dataset": "kmnist",
        "class_names": list(CLASSES),
    }
    assert (exported.folder / METADATA_PATH).is_file()


def test_a_model_made_elsewhere_has_no_metadata(tmp_path: Path) -> None:
    assert read_metadata(str(tmp_path)) == {}


def test_a_pipelines_model_tells_recipe_data_and_code(tiny_run: TinyRun, tiny: Any, tiny_recipe: Any) -> None:
    metadata = read_metadata(str(tiny_run.model))
    assert metadata["dataset"] == "kmnist"
    assert metadata["data_fingerprint"] == tiny.fingerprint
    assert metadata["code_version"] == code_version("mnist_tfx.components.trainer.run_fn")
    assert metadata["image_shape"] == [28, 28, 1]
    assert metadata["normalization"] == "standardize"
    assert metadata["model"] == tiny_recipe.model.model_dump(mode="json")
    assert metadata["training"] == tiny_recipe.training.model_dump(mode="json")


def test_a_pipelines_model_knows_the_class_names(tiny_run: TinyRun, tiny: Any, encoded: list[bytes]) -> None:
    outputs = tf.saved_model.load(str(tiny_run.model)).signatures["encoded_images"](tf.constant(encoded))
    assert len(encoded) == SPLIT_SIZES["test"]
    names = [label.decode() for label in outputs["labels"].numpy()]
    assert names == [tiny.class_names[i] for i in outputs["classes"].numpy()]
