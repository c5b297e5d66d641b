"""A convolutional classifier: a teacher of dense ones. It is never exported."""

from __future__ import annotations

from collections.abc import Sequence

import keras

_UNITS, _DROPOUT = 256, 0.3


def build_teacher(channels: Sequence[int], image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Builds a classifier of normalized pixels; Keras' global seed decides its initial weights.

    A convolution of 5 x 5 halves the image; then come stages of two convolutions of 3 x 3 each (Simonyan and Zisserman
    2014) with max pooling between stages, and a dense layer of 256. All have batch normalization and ReLU.

    Args:
        channels: of the first convolution, then of those of each stage.
        image_shape: height, width, channels.
        num_classes: number of classes, the units of the output layer.

    Returns:
        A model from float32 [N, height, width, channels] to logits, float32 [N, num_classes].
    """
    first, *stages = channels
    layers = [keras.layers.Conv2D(first, 5, strides=2, padding="same", use_bias=False), *_normalized()]
    for number, units in enumerate(stages):
        layers += [keras.layers.MaxPooling2D(padding="same")] if number else []
        for _ in range(2):
            layers += [keras.layers.Conv2D(units, 3, padding="same", use_bias=False), *_normalized()]
    layers += [keras.layers.Flatten(), keras.layers.Dropout(_DROPOUT)]
    layers += [keras.layers.Dense(_UNITS, use_bias=False), *_normalized(), keras.layers.Dropout(_DROPOUT)]
    logits = keras.layers.Dense(num_classes, name="logits")
    return keras.Sequential([keras.Input(image_shape, name="pixels"), *layers, logits], name="teacher")


def _normalized() -> list[keras.layers.Layer]:
    return [keras.layers.BatchNormalization(), keras.layers.Activation("relu")]
