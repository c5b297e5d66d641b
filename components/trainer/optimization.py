"""The optimizer and learning-rate schedule that a recipe names."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from mnist_tfx.components.settings import TrainingSettings
from mnist_tfx.components.trainer.fused_adam import FusedAdam, FusedAdamW


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
