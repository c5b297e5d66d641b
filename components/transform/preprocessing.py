"""Transform's `preprocessing_fn`: from an encoded image to normalized pixels.

The same graph runs in training and in serving. Augmentation has no place here: it would also run on requests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from mnist_tfx.components.settings import TransformSettings
from mnist_tfx.components.transform.images import MAX_PIXEL
from mnist_tfx.contract.names import IMAGE, LABEL, PIXELS

_MIN_DEVIATION = 1e-3


def decode_images(encoded: tf.Tensor, image_shape: tuple[int, int, int]) -> tf.Tensor:
    """Decodes PNG (or JPEG, BMP, the first frame of GIF) images of exactly `image_shape`.

    Args:
        encoded: string [N].
        image_shape: height, width, channels.

    Returns:
        uint8 [N, height, width, channels].

    Raises:
        tf.errors.InvalidArgumentError: when run, if one cannot be decoded or has another size.
    """

    def decode(one: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(one, channels=image_shape[2], expand_animations=False)
        return tf.ensure_shape(image, image_shape)

    return tf.map_fn(decode, encoded, fn_output_signature=tf.TensorSpec(image_shape, tf.uint8))


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Decodes and normalizes.

    Args:
        inputs: `image`, string [N, 1] or [N]; `label`, int64 [N, 1] or [N].
        custom_config: `transform` (JSON of `TransformSettings`) and `image_shape`.

    Returns:
        `pixels`, float32 [N, height, width, channels]; `label`, int64 [N].
    """
    settings = TransformSettings.model_validate_json(custom_config["transform"])
    height, width, channels = custom_config["image_shape"]
    images = decode_images(tf.reshape(inputs[IMAGE], [-1]), (height, width, channels))
    pixels = tf.cast(images, tf.float32)
    if settings.normalization != "none":
        pixels /= MAX_PIXEL
    if settings.normalization == "standardize":
        mean, deviation = _mean_and_deviation(images)
        # The floor keeps a split of one colour from dividing by zero.
        pixels = (pixels - mean) / tf.maximum(deviation, _MIN_DEVIATION)
    return {PIXELS: pixels, LABEL: tf.reshape(inputs[LABEL], [-1])}


def _mean_and_deviation(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of all pixels of split train, as shares of 255, float32: full-pass analyzers, constants in the exported graph.

    From sums of integers, exact in any order. The last digit of a sum of fractions (`tft.mean`) depends on how
    Beam's bundles come: it differed from run to run, and with it the whole training.
    """
    values = tf.cast(images, tf.int64)
    count = tf.cast(tft.size(values), tf.float64)
    mean = tf.cast(tft.sum(values), tf.float64) / count
    variance = tf.cast(tft.sum(values * values), tf.float64) / count - mean * mean
    return tf.cast(mean / MAX_PIXEL, tf.float32), tf.cast(tf.sqrt(tf.maximum(variance, 0.0)) / MAX_PIXEL, tf.float32)


class Normalization:
    """What a Transform graph does to pixel values, as `images * scale + offset`, read off the graph itself.

    Training augments and caches decoded images, and signature `images` takes them as they are, so both need the graph's
    normalization without its decoding. Rather than writing it a second time, two probe images (all 0, all 255) are put
    through the graph, and a third of random values proves that what lies between is the straight line.
    """

    def __init__(self, scale: np.ndarray, offset: np.ndarray) -> None:
        """Both are float32 [height, width, channels]."""
        self.scale, self.offset = scale, offset

    @classmethod
    def of_graph(cls, transform_output: tft.TFTransformOutput, image_shape: tuple[int, int, int]) -> Normalization:
        """Probes the graph.

        Raises:
            ValueError: its normalization is not a per-pixel affine map (of uint8 values to 1e-5).
        """
        random = np.random.default_rng(0).integers(0, 256, image_shape, dtype=np.uint8)
        probes = [np.zeros(image_shape, np.uint8), np.full(image_shape, 255, np.uint8), random]
        # PNG is lossless, so the graph sees just these values.
        encoded = tf.stack([tf.io.encode_png(probe) for probe in probes])
        layer = transform_output.transform_features_layer()
        low, high, between = layer({IMAGE: encoded[:, tf.newaxis]})[PIXELS].numpy()
        normalization = cls(((high - low) / MAX_PIXEL).astype(np.float32), low.astype(np.float32))
        expected = random.astype(np.float32) * normalization.scale + normalization.offset
        if not np.allclose(between, expected, atol=1e-5):
            raise ValueError(
                "preprocessing_fn's normalization is not a per-pixel affine map of the decoded image, which cached "
                "training data and the signature 'images' rely on. Normalize as pixels * scale + offset."
            )
        return normalization

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Normalizes images [N, height, width, channels] of values in [0, 255], any number type, to float32."""
        return tf.cast(images, tf.float32) * self.scale + self.offset
