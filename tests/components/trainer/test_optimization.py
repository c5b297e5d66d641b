"""Optimizers and learning-rate schedules: what arrives of each setting, compared with the formulas in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from pydantic import ValidationError

from mnist_tfx.components.settings import AugmentationSettings, TrainingSettings
from mnist_tfx.components.trainer.export import ServingModule, export_model, read_weights
from mnist_tfx.components.trainer.optimization import learning_rate, make_optimizer
from mnist_tfx.components.trainer.training_data import TrainingInput
from tests.fixtures.tiny_run import TinyRun
from tests.fixtures.training import NORMALIZATION, SHAPE, config, decoded, eval_pixels, trained

Floats = npt.NDArray[np.float64]
RATE = 0.1


def rates(steps_per_epoch: int = 20, epochs: int = 10, **settings: Any) -> Callable[[int], float]:
    """The learning rate by step."""
    made = learning_rate(TrainingSettings(learning_rate=RATE, epochs=epochs, **settings), steps_per_epoch)
    return (lambda step: made) if isinstance(made, float) else (lambda step: float(made(step)))


def test_a_constant_rate_stays() -> None:
    at = rates()
    assert [at(0), at(199)] == [RATE, RATE]


def test_a_cosine_goes_from_the_rate_to_0_over_all_steps() -> None:
    at = rates(schedule="cosine")
    for step in (0, 1, 50, 100, 150, 199, 200):
        assert at(step) == pytest.approx(RATE * (1 + math.cos(math.pi * step / 200)) / 2, abs=1e-7)
    assert at(200) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_warm_up_rises_in_a_straight_line(schedule: str) -> None:
    at = rates(schedule=schedule, warmup=0.1)
    for step in (0, 5, 10, 19, 20):
        assert at(step) == pytest.approx(RATE * step / 20, abs=1e-7)


def test_after_the_warm_up_a_constant_rate_stays() -> None:
    at = rates(warmup=0.1)
    assert [at(step) for step in (20, 21, 100, 200)] == pytest.approx([RATE] * 4)


def test_after_the_warm_up_a_cosine_takes_the_steps_that_are_left() -> None:
    at = rates(schedule="cosine", warmup=0.1)
    for step in (20, 65, 110, 155, 200):
        assert at(step) == pytest.approx(RATE * (1 + math.cos(math.pi * (step - 20) / 180)) / 2, abs=1e-7)


def test_a_warm_up_as_long_as_the_training_leaves_a_rate_at_every_step() -> None:
    at = rates(steps_per_epoch=2, epochs=1, schedule="cosine", warmup=0.99)
    assert all(math.isfinite(at(step)) for step in range(3))


def weights_after(gradients: Floats, **settings: Any) -> Floats:
    """One weight's values: at the beginning 1, and after each gradient."""
    optimizer = make_optimizer(TrainingSettings(learning_rate=RATE, **settings), steps_per_epoch=10)
    weight = keras.Variable([1.0])
    values = [1.0]
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant([gradient], tf.float32), weight)])
        values.append(float(weight.numpy()[0]))
    return np.array(values)


GRADIENTS = np.array([0.5, -0.2, 1.0, 0.3])


@pytest.mark.parametrize("momentum", [0.0, 0.6, 0.9])
def test_sgd_has_nesterovs_momentum(momentum: float) -> None:
    weight, velocity, expected = 1.0, 0.0, [1.0]
    for gradient in GRADIENTS:
        velocity = momentum * velocity - RATE * gradient
        weight += momentum * velocity - RATE * gradient
        expected.append(weight)
    np.testing.assert_allclose(weights_after(GRADIENTS, optimizer="sgd", momentum=momentum), expected, atol=1e-6)


def adam(beta_2: float, weight_decay: float = 0.0) -> Floats:
    """Adam (Kingma and Ba 2015, algorithm 1), with the decoupled decay of Loshchilov and Hutter (2019)."""
    weight, mean, square, values = 1.0, 0.0, 0.0, [1.0]
    for step, gradient in enumerate(GRADIENTS, 1):
        weight -= RATE * weight_decay * weight
        mean = 0.9 * mean + 0.1 * gradient
        square = beta_2 * square + (1 - beta_2) * gradient**2
        weight -= RATE * mean / (1 - 0.9**step) / (math.sqrt(square / (1 - beta_2**step)) + 1e-7)
        values.append(weight)
    return np.array(values)


@pytest.mark.parametrize("beta_2", [0.9, 0.999])
def test_adam_takes_beta_2(beta_2: float) -> None:
    np.testing.assert_allclose(weights_after(GRADIENTS, optimizer="adam", beta_2=beta_2), adam(beta_2), atol=1e-4)


@pytest.mark.parametrize(("beta_2", "weight_decay"), [(0.999, 0.0), (0.99, 0.5)])
def test_adamw_takes_beta_2_and_weight_decay(beta_2: float, weight_decay: float) -> None:
    values = weights_after(GRADIENTS, optimizer="adamw", beta_2=beta_2, weight_decay=weight_decay)
    np.testing.assert_allclose(values, adam(beta_2, weight_decay), atol=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "setting"),
    [("adam", "momentum"), ("adam", "weight_decay"), ("adamw", "momentum"), ("sgd", "beta_2"), ("sgd", "weight_decay")],
)
def test_what_belongs_to_another_optimizer_is_refused_and_no_part_of_the_identity(optimizer: str, setting: str) -> None:
    with pytest.raises(ValidationError, match=f"{setting} has no effect with optimizer '{optimizer}'"):
        TrainingSettings.model_validate({"optimizer": optimizer, setting: 0.5})
    assert getattr(TrainingSettings.model_validate({"optimizer": optimizer}), setting) is None
    assert TrainingSettings.model_validate({"optimizer": optimizer, setting: None})  # as it comes back from JSON


def test_what_belongs_to_the_optimizer_has_its_value_where_none_is_given() -> None:
    assert TrainingSettings(optimizer="sgd") == TrainingSettings(optimizer="sgd", momentum=0.9)
    assert TrainingSettings(optimizer="adam") == TrainingSettings(optimizer="adam", beta_2=0.999)
    assert TrainingSettings(optimizer="adamw") == TrainingSettings(optimizer="adamw", beta_2=0.999, weight_decay=0.004)


def softmax(logits: Floats) -> Floats:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def test_the_weights_average_is_evaluated_and_kept_and_exported(tiny_run: TinyRun, tmp_path: Path) -> None:
    """A linear classifier, whose every step can be done by hand."""
    momentum, rate, epochs = 0.9, 0.2, 3
    settings = config(
        tmp_path,
        {"hidden_layers": ()},
        optimizer="sgd",
        momentum=0.0,
        learning_rate=rate,
        epochs=epochs,
        weight_average=momentum,
    )
    model, log = trained(tiny_run.examples, tmp_path, settings)

    keras.utils.set_random_seed(settings.training.seed)
    kernel = np.asarray(keras.initializers.GlorotUniform()((784, 10)), np.float64)
    weights = np.vstack([kernel, np.zeros((1, 10))])  # the last row is the bias
    average = weights.copy()
    data = TrainingInput(
        decoded(tiny_run.examples, "train", tmp_path),
        NORMALIZATION,
        AugmentationSettings(),
        num_classes=10,
        batch_size=settings.training.batch_size,
        seed=settings.training.seed,
    )
    pixels, labels = eval_pixels(tiny_run)
    inputs = np.column_stack([pixels.reshape(len(pixels), -1), np.ones(len(pixels))]).astype(np.float64)

    def loss_of(weights: Floats) -> float:
        return float(-np.log(softmax(inputs @ weights)[np.arange(len(labels)), labels]).mean())

    averages, losses, losses_without, first_step = [], [], [], True
    for epoch in range(epochs):
        data.epoch.assign(epoch)
        for batch, targets in data.batches().as_numpy_iterator():
            rows = np.column_stack([batch.reshape(len(batch), -1), np.ones(len(batch))]).astype(np.float64)
            weights = weights - rate * rows.T @ (softmax(rows @ weights) - targets) / len(rows)
            # The average begins with the weights after the first step.
            average = weights if first_step else momentum * average + (1 - momentum) * weights
            first_step = False
        averages.append(average)
        losses.append(loss_of(average))
        losses_without.append(loss_of(weights))

    assert [row["val_loss"] for row in log["history"]] == pytest.approx(losses, rel=1e-3)
    assert losses_without != pytest.approx(losses, rel=1e-2)
    kept = averages[log["best_epoch"] - 1]
    np.testing.assert_allclose(np.vstack(model.get_weights()), kept, atol=1e-4)
    assert np.abs(kept - weights).max() > 0.01

    graph = tft.TFTransformOutput(str(tiny_run.transform_graph))
    export_model(
        ServingModule(model, graph, NORMALIZATION, settings.class_names, SHAPE), str(tmp_path / "exported"), {}
    )
    exported = read_weights(tf.saved_model.load(str(tmp_path / "exported")))
    np.testing.assert_allclose(np.vstack([weight.numpy() for weight in exported]), kept, atol=1e-4)
