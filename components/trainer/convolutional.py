"""A convolutional classifier: a teacher of dense ones. It is never exported."""

from __future__ import annotations

from collections.abc import Sequence

import keras

_UNITS, _DROPOUT = 256, 0.3


def build_teacher(
    channels: Sequence[int], image_shape: tuple[int, int, int], num_classes: int, precision: str = "float32"
) -> keras.Model:
    """Builds a classifier of normalized pixels; Keras' global seed decides its initial weights.

    A convolution of 5 x 5 halves the image; then come stages of two convolutions of 3 x 3 each (Simonyan and Zisserman
    2014) with max pooling between stages, and a dense layer of 256. All have batch normalization and ReLU.

    Args:
        channels: of the first convolution, then of those of each stage.
        image_shape: height, width, channels.
        num_classes: number of classes, the units of the output layer.
        precision: Keras' dtype policy of the hidden layers.

    Returns:
        A model from float32 [N, height, width, channels] to logits, float32 [N, num_classes].
    """
    first, *stages = channels
    layers = [_convolution(first, 5, 2, precision), *_normalized(precision)]
    for number, units in enumerate(stages):
        layers += [keras.layers.MaxPooling2D(padding="same", dtype=precision)] if number else []
        for _ in range(2):
            layers += [_convolution(units, 3, 1, precision), *_normalized(precision)]
    layers += [keras.layers.Flatten(dtype=precision), keras.layers.Dropout(_DROPOUT, dtype=precision)]
    layers += [keras.layers.Dense(_UNITS, use_bias=False, dtype=precision), *_normalized(precision)]
    layers += [keras.layers.Dropout(_DROPOUT, dtype=precision)]
    logits = keras.layers.Dense(num_classes, name="logits")
    return keras.Sequential([keras.Input(image_shape, name="pixels"), *layers, logits], name="teacher")


def _convolution(channels: int, size: int, strides: int, precision: str) -> keras.layers.Layer:
    return keras.layers.Conv2D(channels, size, strides, padding="same", use_bias=False, dtype=precision)


def _normalized(precision: str) -> list[keras.layers.Layer]:
    return [keras.layers.BatchNormalization(dtype=precision), keras.layers.Activation("relu", dtype=precision)]
