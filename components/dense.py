"""The dense classifiers."""

from __future__ import annotations

import keras

from components.settings import ModelSettings


def build_model(settings: ModelSettings, image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Builds a classifier of normalized pixels; Keras' global seed decides its initial weights.

    Args:
        settings: the recipe's model section.
        image_shape: height, width, channels.
        num_classes: number of classes, the units of the output layer.

    Returns:
        A model from float32 [N, height, width, channels] to logits, float32 [N, num_classes].
    """
    regularizer = keras.regularizers.L2(settings.l2) if settings.l2 else None
    layers: list[keras.layers.Layer] = [keras.Input(image_shape, name="pixels"), keras.layers.Flatten()]
    for units in settings.hidden_layers:
        layers.append(
            keras.layers.Dense(units, kernel_regularizer=regularizer, use_bias=not settings.batch_normalization)
        )
        if settings.batch_normalization:
            layers.append(keras.layers.BatchNormalization())
        layers.append(keras.layers.Activation(settings.activation))
        if settings.dropout:
            layers.append(keras.layers.Dropout(settings.dropout))
    layers.append(keras.layers.Dense(num_classes, name="logits"))
    return keras.Sequential(layers, name="dense_classifier")
