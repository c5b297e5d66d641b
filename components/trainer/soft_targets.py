"""A training step of our own, for targets that are not what the data says (mixup, distillation) or weigh unequally."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class SoftTargetsClassifier(keras.Model):
    """A classifier whose training step mixes images (mixup), asks teachers for the targets, or weighs the classes.

    Outside training it is the classifier that it was made of.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        mixup: float = 0.0,
        teachers: Sequence[keras.Model] = (),
        weight: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        """Takes a model to logits, mixup's alpha, models to logits and their share in the targets, classes' weights."""
        super().__init__(name=classifier.name)
        self.classifier, self._mixup, self._weight = classifier, mixup, weight
        self._class_weights = class_weights
        self._teach = [teacher.call for teacher in teachers]  # functions: nothing of them is saved or trained with this
        self.seed_generator = keras.random.SeedGenerator(0)
        self.build(classifier.input_shape)

    def call(self, pixels: tf.Tensor, training: bool = False) -> tf.Tensor:
        """float32 [N, height, width, channels] to logits, float32 [N, classes]."""
        return self.classifier(pixels, training=training)

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, Any]:
        """One step of Keras' `fit` on pixels, float32 [N, ...], and one-hot targets, float32 [N, classes]."""
        pixels, targets, _ = keras.utils.unpack_x_y_sample_weight(data)
        if self._mixup:
            pixels, targets = mix(pixels, targets, self._mixup, self.seed_generator)
        if self._teach:
            targets = (1.0 - self._weight) * targets + self._weight * mean_probabilities(self._teach, pixels)
        weights = tf.linalg.matvec(targets, self._class_weights) if self._class_weights else None
        with tf.GradientTape() as tape:
            logits = self(pixels, training=True)
            loss = self.compute_loss(pixels, targets, logits, sample_weight=weights)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        count = tf.shape(pixels)[0]  # an epoch's loss is the mean over its images: its last batch may be smaller
        replicas = tf.distribute.get_strategy().num_replicas_in_sync  # by which compute_loss divides
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss * replicas, sample_weight=count)
            else:
                metric.update_state(targets, logits)
        return self.get_metrics_result()


def mix(
    pixels: tf.Tensor, targets: tf.Tensor, alpha: float, seed_generator: keras.random.SeedGenerator
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixup (Zhang et al. 2018): each image becomes a blend of itself and another of the batch, and so its targets.

    The shares are drawn from Beta(alpha, alpha) per image; the other image is the one before it: batches are shuffled.
    """
    share = keras.random.beta([tf.shape(pixels)[0], 1], alpha, alpha, seed=seed_generator)
    of_image = tf.reshape(share, [-1, *[1] * (len(pixels.shape) - 1)])
    return (
        of_image * pixels + (1.0 - of_image) * tf.roll(pixels, 1, axis=0),
        share * targets + (1.0 - share) * tf.roll(targets, 1, axis=0),
    )


def mean_probabilities(teach: Sequence[Any], pixels: tf.Tensor) -> tf.Tensor:
    """The mean of the probabilities that functions from pixels to logits give: float32 [N, classes]."""
    return tf.add_n([tf.nn.softmax(function(pixels, training=False)) for function in teach]) / len(teach)
