"""What the Transform graph does to images, compared with NumPy."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

from mnist_tfx.components.beam_arguments import beam_arguments
from mnist_tfx.components.settings import BeamSettings, TransformSettings
from mnist_tfx.components.transform.preprocessing import Normalization, decode_images, preprocessing_fn
from mnist_tfx.contract.names import IMAGE, LABEL, PIXELS
from tests.fixtures.tiny_dataset import draw_examples
from tests.fixtures.tiny_run import TinyRun, decode, read_split

SHAPE = (28, 28, 1)


def encode(image: npt.NDArray[np.uint8], format: str = "PNG") -> bytes:
    """Encodes with Pillow, so that the test does not read what it wrote with the same library."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format)
    return stream.getvalue()


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.uint8]:
    """uint8 [60, 28, 28]."""
    return draw_examples(60, seed=5)[0]


def test_images_are_decoded_eagerly_and_in_tf_data_alike(images: npt.NDArray[np.uint8]) -> None:
    encoded = [encode(image) for image in images]
    eager = decode_images(tf.constant(encoded), SHAPE)
    assert eager.dtype == tf.uint8
    np.testing.assert_array_equal(eager, images[..., np.newaxis])

    data = tf.data.Dataset.from_tensor_slices(encoded).batch(25).map(lambda batch: decode_images(batch, SHAPE))
    assert data.element_spec.shape.as_list() == [None, 28, 28, 1]
    np.testing.assert_array_equal(np.concatenate(list(data.as_numpy_iterator())), images[..., np.newaxis])


def test_no_images_are_decoded_to_no_images() -> None:
    assert decode_images(tf.constant([], tf.string), SHAPE).shape == (0, 28, 28, 1)


@pytest.mark.parametrize("size", [(27, 28), (28, 29), (56, 56)])
def test_an_image_of_another_size_raises(images: npt.NDArray[np.uint8], size: tuple[int, int]) -> None:
    encoded = tf.constant([encode(images[0]), encode(np.zeros(size, np.uint8))])
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_images(encoded, SHAPE)
    data = tf.data.Dataset.from_tensors(encoded).map(lambda batch: decode_images(batch, SHAPE))
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(data)


def test_what_is_no_image_raises() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_images(tf.constant([b"no image"]), SHAPE)


def transform(
    folder: Path, function: Any, images: npt.NDArray[np.uint8], normalization: str = "unit"
) -> tft.TFTransformOutput:
    """Analyzes with TFT on Beam, as Transform does."""
    config = {
        "transform": TransformSettings.model_validate({"normalization": normalization}).model_dump_json(),
        "image_shape": list(SHAPE),
    }
    schema = tft.DatasetMetadata.from_feature_spec(
        {IMAGE: tf.io.FixedLenFeature([1], tf.string), LABEL: tf.io.FixedLenFeature([1], tf.int64)}
    )
    rows = [{IMAGE: [encode(image)], LABEL: [0]} for image in images]
    with (
        beam.Pipeline(options=PipelineOptions(beam_arguments(BeamSettings()))) as pipeline,
        tft_beam.Context(temp_dir=str(folder / "tmp")),
    ):
        data = (pipeline | beam.Create(rows), schema)
        _ = (
            data
            | tft_beam.AnalyzeDataset(lambda inputs: function(inputs, config))
            | tft_beam.WriteTransformFn(str(folder))  # type: ignore[attr-defined]
        )
    return tft.TFTransformOutput(str(folder))


def pixels_of(graph: tft.TFTransformOutput, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What the graph makes of encoded images."""
    encoded = tf.constant([[encode(image)] for image in images])
    return np.asarray(graph.transform_features_layer()({IMAGE: encoded})[PIXELS])


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory, images: npt.NDArray[np.uint8]) -> tft.TFTransformOutput:
    """The graph of `unit`."""
    return transform(tmp_path_factory.mktemp("unit"), preprocessing_fn, images, "unit")


def test_none_leaves_pixels_as_they_are(tmp_path: Path, images: npt.NDArray[np.uint8]) -> None:
    pixels = pixels_of(transform(tmp_path, preprocessing_fn, images, "none"), images)
    assert pixels.dtype == np.float32 and (pixels[..., 0] == images).all()


def test_unit_maps_0_to_0_and_255_to_1(unit: tft.TFTransformOutput, images: npt.NDArray[np.uint8]) -> None:
    pixels = pixels_of(unit, images)
    assert pixels.shape == (60, 28, 28, 1) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[..., 0], images.astype(np.float64) / 255, atol=1e-6)
    extremes = np.stack([np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)])
    assert pixels_of(unit, extremes).reshape(2, -1).tolist() == [[0.0] * 784, [1.0] * 784]


@pytest.fixture(scope="module")
def tiny_graph(tiny_run: TinyRun) -> tft.TFTransformOutput:
    """The graph of `standardize`, made by the pipeline's Transform."""
    return tft.TFTransformOutput(str(tiny_run.transform_graph))


def split_pixels(tiny_run: TinyRun, split: str) -> npt.NDArray[np.uint8]:
    return decode([image for image, _ in read_split(tiny_run.examples, split)])[..., 0]


def test_standardize_uses_mean_and_deviation_of_train_alone(
    tiny_run: TinyRun, tiny_graph: tft.TFTransformOutput
) -> None:
    train, test = split_pixels(tiny_run, "train"), split_pixels(tiny_run, "test")
    values = train.astype(np.float64) / 255
    pixels = pixels_of(tiny_graph, train)
    assert pixels.mean() == pytest.approx(0, abs=1e-4) and pixels.std() == pytest.approx(1, abs=1e-4)
    expected = (test.astype(np.float64) / 255 - values.mean()) / values.std()
    np.testing.assert_allclose(pixels_of(tiny_graph, test)[..., 0], expected, atol=1e-4)
    everything = np.concatenate([train, split_pixels(tiny_run, "eval"), test]) / 255.0
    assert abs(everything.mean() - values.mean()) > 1e-4  # the test can tell the difference


def test_standardize_is_exact_to_the_last_digit_whatever_the_order_of_the_images(
    tiny_run: TinyRun, tiny_graph: tft.TFTransformOutput
) -> None:
    """Sums of fractions would end with another digit by order, and each training with another model."""
    values = split_pixels(tiny_run, "train").astype(np.int64)
    mean = values.sum() / values.size
    deviation = np.sqrt((values**2).sum() / values.size - mean**2)
    black = np.float32(0) - np.float32(mean / 255)
    assert pixels_of(tiny_graph, np.zeros((1, 28, 28), np.uint8)).flat[0] == black / np.float32(deviation / 255)


def test_standardize_survives_images_of_one_colour(tmp_path: Path) -> None:
    gray = np.full((5, 28, 28), 128, np.uint8)
    pixels = pixels_of(transform(tmp_path, preprocessing_fn, gray, "standardize"), gray)
    np.testing.assert_allclose(pixels, 0, atol=1e-3)


def test_normalization_equals_the_graph(
    tiny_graph: tft.TFTransformOutput, unit: tft.TFTransformOutput, images: npt.NDArray[np.uint8]
) -> None:
    for graph in (tiny_graph, unit):
        normalization = Normalization.of_graph(graph, SHAPE)
        assert normalization.scale.shape == normalization.offset.shape == SHAPE
        made = np.asarray(normalization(images[..., np.newaxis]))
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, pixels_of(graph, images), atol=1e-5)


def test_normalization_takes_any_number_type(unit: tft.TFTransformOutput, images: npt.NDArray[np.uint8]) -> None:
    normalization = Normalization.of_graph(unit, SHAPE)
    batch = images[..., np.newaxis]
    np.testing.assert_array_equal(normalization(batch), normalization(batch.astype(np.float32)))
    np.testing.assert_array_equal(normalization(batch), normalization(batch.astype(np.int64)))


@pytest.mark.parametrize("name", ["square", "per_image"])
def test_a_preprocessing_that_is_no_straight_line_is_refused(
    tmp_path: Path, images: npt.NDArray[np.uint8], name: str
) -> None:
    def square(inputs: dict[str, tf.Tensor], config: dict[str, Any]) -> dict[str, tf.Tensor]:
        outputs = preprocessing_fn(inputs, config)
        return {**outputs, PIXELS: outputs[PIXELS] ** 2}

    def per_image(inputs: dict[str, tf.Tensor], config: dict[str, Any]) -> dict[str, tf.Tensor]:
        outputs = preprocessing_fn(inputs, config)
        return {**outputs, PIXELS: outputs[PIXELS] - tf.reduce_mean(outputs[PIXELS], axis=[1, 2, 3], keepdims=True)}

    graph = transform(tmp_path, {"square": square, "per_image": per_image}[name], images)
    with pytest.raises(ValueError, match=r"not a per-pixel affine map .* Normalize as pixels \* scale \+ offset"):
        Normalization.of_graph(graph, SHAPE)


def test_labels_pass_through_as_a_vector(tiny_graph: tft.TFTransformOutput, images: npt.NDArray[np.uint8]) -> None:
    encoded = tf.constant([[encode(image)] for image in images[:3]])
    labels = tiny_graph.transform_features_layer()({IMAGE: encoded, LABEL: tf.constant([[3], [1], [4]], tf.int64)})[
        LABEL
    ]
    assert labels.dtype == tf.int64
    assert labels.numpy().tolist() == [3, 1, 4]
