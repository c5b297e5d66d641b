"""The optimizer and learning-rate schedule that a recipe names."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tfx.components.settings import TrainingSettings


def learning_rate(
    settings: TrainingSettings, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate, constant or by step: a linear warm-up from 0, then constant or a cosine down to 0.

    The cosine is that of Loshchilov and Hutter (2017), without restarts.
    """
    steps = steps_per_epoch * settings.epochs
    warmup_steps = min(round(settings.warmup * steps), steps - 1)  # Keras wants a step after the warm-up
    if settings.schedule == "constant" and not warmup_steps:
        return settings.learning_rate
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else settings.learning_rate,
        decay_steps=steps - warmup_steps,
        alpha=1.0 if settings.schedule == "constant" else 0.0,  # the share that is left at the end
        warmup_target=settings.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def class_weights(labels: npt.NDArray[np.int64], num_classes: int, how: str) -> list[float] | None:
    """The weight of each class in the loss, 1 on average over the examples; None: all weigh the same.

    Args:
        labels: int64 [N], of split train.
        num_classes: of the dataset.
        how: `none`, or `balanced`: N / (classes * examples of the class), as scikit-learn's `compute_class_weight`.
    """
    if how == "none":
        return None
    counts = np.bincount(labels, minlength=num_classes)
    return [float(weight) for weight in len(labels) / (num_classes * np.maximum(counts, 1))]


def make_optimizer(settings: TrainingSettings, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer, with its schedule and, if asked for, a moving average of the weights."""
    average: dict[str, Any] = (
        {"use_ema": True, "ema_momentum": settings.weight_average} if settings.weight_average else {}
    )
    rate = learning_rate(settings, steps_per_epoch)
    if settings.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=settings.momentum, nesterov=True, **average)
    if settings.optimizer == "rmsprop":
        return keras.optimizers.RMSprop(rate, rho=settings.rho, epsilon=settings.epsilon, **average)
    moments = {"beta_1": settings.beta_1, "beta_2": settings.beta_2, "epsilon": settings.epsilon}
    if settings.optimizer == "adam":
        return FusedAdam(rate, **moments, **average)
    return FusedAdamW(rate, weight_decay=settings.weight_decay, **moments, **average)


class FusedAdam(keras.optimizers.Adam):
    """Adam (Kingma and Ba 2015) with TensorFlow's fused kernel: one pass over the weights, where Keras makes a dozen.

    The arithmetic is the same but for the order of rounding. `python -m benchmarks.training --only switches` has what
    it saves.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> Any:
        """Changes a variable by its gradient; on several devices as Keras does, the kernel knows only one."""
        if self._distribution_strategy.num_replicas_in_sync > 1:
            return super().update_step(gradient, variable, learning_rate)
        index, step = self._get_variable_index(variable), tf.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = (tf.cast(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        return tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
        )


class FusedAdamW(FusedAdam, keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019): Adam with decoupled weight decay."""
