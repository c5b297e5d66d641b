"""Runs the range test on a recipe's classifier."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import keras
import tensorflow as tf

from mnist_tfx.components.range_test import MAX_RATE, MIN_RATE, STEPS
from mnist_tfx.components.range_test.curve import Curve, measure
from mnist_tfx.components.trainer.config import TrainerConfig
from mnist_tfx.components.trainer.optimization import class_weights, make_optimizer
from mnist_tfx.components.trainer.training import compiled_model, training_input
from mnist_tfx.components.trainer.training_data import DecodedExamples, TrainingInput
from mnist_tfx.components.transform.preprocessing import Normalization

_PROGRESS = logging.getLogger("mnist_tfx.progress")


def measure_curve(
    config: TrainerConfig,
    normalization: Normalization,
    train_examples: DecodedExamples,
    min_rate: float = MIN_RATE,
    max_rate: float = MAX_RATE,
    steps: int = STEPS,
) -> Curve:
    """Trains a new classifier as the recipe says, but for the learning rate and without teachers; it is thrown away.

    The same recipe, seed and data give the same curve. Sees split train alone.
    """
    settings = config.training
    keras.utils.set_random_seed(settings.seed)
    data = training_input(config, normalization, train_examples)
    plain = settings.model_copy(
        update={"schedule": "constant", "warmup": 0.0, "weight_average": 0.0, "learning_rate": min_rate}
    )
    optimizer = make_optimizer(plain, data.steps)
    weights = class_weights(train_examples.labels, len(config.class_names), settings.class_weight)
    model, _ = compiled_model(config, optimizer, class_weights=weights)
    batches = _endless(data)

    def train_step(rate: float) -> float:
        optimizer.learning_rate = rate
        model.reset_metrics()  # else the loss is the mean of all steps so far
        return float(model.train_on_batch(*next(batches), return_dict=True)["loss"])

    _PROGRESS.info("range test: %d steps, learning rates %g to %g", steps, min_rate, max_rate)
    return measure(train_step, min_rate, max_rate, steps)


def _endless(data: TrainingInput) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Batches of one epoch after the other."""
    epoch = 0
    while True:
        data.epoch.assign(epoch)
        yield from data.batches()
        epoch += 1
