"""The dense classifiers, in three forms that are the same function: Sequential, Functional, and layers of our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from mnist_tfx.components.settings import ModelSettings


def build_model(
    settings: ModelSettings, image_shape: tuple[int, int, int], num_classes: int, precision: str = "float32"
) -> keras.Model:
    """Builds a classifier of normalized pixels; Keras' global seed decides its initial weights.

    The weights of all three forms have the same shapes and come in the same order.

    Args:
        settings: the recipe's model section.
        image_shape: height, width, channels.
        num_classes: number of classes, the units of the output layer.
        precision: Keras' dtype policy of the hidden layers.

    Returns:
        A model from float32 [N, height, width, channels] to logits, float32 [N, num_classes].
    """
    form = {"sequential": _sequential, "functional": _functional, "custom": _custom}[settings.form]
    return form(settings, image_shape, num_classes, precision)


def _sequential(
    settings: ModelSettings, image_shape: tuple[int, int, int], num_classes: int, precision: str
) -> keras.Model:
    """A list of layers."""
    layers = [keras.Input(image_shape, name="pixels"), *_layers(keras.layers.Dense, settings, num_classes, precision)]
    return keras.Sequential(layers, name="dense_classifier")


def _functional(
    settings: ModelSettings, image_shape: tuple[int, int, int], num_classes: int, precision: str
) -> keras.Model:
    """Layers called on symbolic tensors: the form to begin from for a graph that is no chain."""
    pixels = keras.Input(image_shape, name="pixels")
    outputs = pixels
    for layer in _layers(keras.layers.Dense, settings, num_classes, precision):
        outputs = layer(outputs)
    return keras.Model(pixels, outputs, name="dense_classifier")


def _custom(
    settings: ModelSettings, image_shape: tuple[int, int, int], num_classes: int, precision: str
) -> keras.Model:
    """As the first form, with a dense layer written out by hand: the form to begin from for a layer of one's own."""
    layers = [keras.Input(image_shape, name="pixels"), *_layers(AffineLayer, settings, num_classes, precision)]
    return keras.Sequential(layers, name="dense_classifier")


def _layers(
    dense: type[keras.layers.Layer], settings: ModelSettings, num_classes: int, precision: str
) -> Iterator[keras.layers.Layer]:
    regularizer = keras.regularizers.L2(settings.l2) if settings.l2 else None
    yield keras.layers.Flatten(dtype=precision)
    if settings.input_dropout:
        yield keras.layers.Dropout(settings.input_dropout, dtype=precision)
    for units in settings.hidden_layers:
        # Batch normalization has an offset of its own, which makes the dense layer's bias redundant.
        bias = not settings.batch_normalization
        yield dense(units, kernel_regularizer=regularizer, use_bias=bias, dtype=precision)
        if settings.batch_normalization:
            yield keras.layers.BatchNormalization(dtype=precision)
        yield keras.layers.Activation(settings.activation, dtype=precision)
        if settings.dropout:
            yield keras.layers.Dropout(settings.dropout, dtype=precision)
    yield dense(num_classes, kernel_regularizer=None if settings.hidden_layers else regularizer, name="logits")


class AffineLayer(keras.layers.Layer):
    """What `keras.layers.Dense` computes, written out: `inputs @ kernel + bias`."""

    def __init__(
        self,
        units: int,
        *,
        use_bias: bool = True,
        kernel_regularizer: keras.regularizers.Regularizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Takes the number of outputs; the kernel begins as Glorot and Bengio (2010) advise, the bias as 0."""
        super().__init__(**kwargs)
        self.units, self.use_bias, self.kernel_regularizer = units, use_bias, kernel_regularizer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights: `kernel` [inputs, units] and `bias` [units]."""
        self.kernel = self.add_weight(
            (input_shape[-1], self.units), "glorot_uniform", name="kernel", regularizer=self.kernel_regularizer
        )
        self.bias = self.add_weight((self.units,), "zeros", name="bias") if self.use_bias else None

    def call(self, inputs: Any) -> Any:
        """[N, inputs] to [N, units]."""
        outputs = keras.ops.matmul(inputs, self.kernel)
        return outputs if self.bias is None else outputs + self.bias
