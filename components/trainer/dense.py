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
    dense = AffineLayer if settings.form == "custom" else keras.layers.Dense
    pixels, layers = keras.Input(image_shape, name="pixels"), _layers(dense, settings, num_classes, precision)
    if settings.form == "functional":  # the form to begin from for a graph that is no chain
        outputs = pixels
        for layer in layers:
            outputs = layer(outputs)
        return keras.Model(pixels, outputs, name="dense_classifier")
    return keras.Sequential([pixels, *layers], name="dense_classifier")


def _layers(
    dense: type[keras.layers.Layer], settings: ModelSettings, num_classes: int, precision: str
) -> Iterator[keras.layers.Layer]:
    hidden = settings.hidden_layers
    dropout = settings.layer_dropout or (settings.dropout,) * len(hidden)
    l2 = settings.layer_l2 or (settings.l2,) * len(hidden)
    yield keras.layers.Flatten(dtype=precision)
    if settings.input_dropout:
        yield keras.layers.Dropout(settings.input_dropout, dtype=precision)
    for units, layer_dropout, layer_l2 in zip(hidden, dropout, l2, strict=True):
        # Batch normalization has an offset of its own, which makes the dense layer's bias redundant.
        bias = not settings.batch_normalization
        yield dense(units, kernel_regularizer=_regularizer(layer_l2), use_bias=bias, dtype=precision)
        if settings.batch_normalization:
            yield keras.layers.BatchNormalization(dtype=precision)
        yield keras.layers.Activation(settings.activation, dtype=precision)
        if layer_dropout:
            yield keras.layers.Dropout(layer_dropout, dtype=precision)
    regularizer = None if hidden else _regularizer(settings.l2)
    if settings.output == "softmax":
        yield dense(num_classes, kernel_regularizer=regularizer, name="logits")
    else:
        yield dense(1, kernel_regularizer=regularizer, name="logit")
        yield TwoLogits(name="logits")


def _regularizer(l2: float) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L2(l2) if l2 else None


class TwoLogits(keras.layers.Layer):
    """The logit of the second of two classes, [N, 1], to logits of both, [N, 2]: 0 and itself.

    Softmax over these is the sigmoid of the one, and their cross entropy is its binary cross entropy: nothing that
    reads logits or probabilities needs to know of the other form.
    """

    def call(self, logit: Any) -> Any:
        """[N, 1] to [N, 2]."""
        return keras.ops.concatenate([keras.ops.zeros_like(logit), logit], axis=-1)


class AffineLayer(keras.layers.Layer):
    """What `keras.layers.Dense` computes, written out: where to begin with a layer of one's own."""

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
