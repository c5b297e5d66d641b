"""Settings that small networks are taught with: each changes a training in the way that it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from mnist_tfx.components.settings import ModelSettings, TrainingSettings
from mnist_tfx.components.trainer import precision
from mnist_tfx.components.trainer.dense import build_model
from mnist_tfx.components.trainer.optimization import class_weights, make_optimizer
from mnist_tfx.components.trainer.precision import hardware_precision
from mnist_tfx.components.trainer.soft_targets import SoftTargetsClassifier
from mnist_tfx.components.trainer.training import train
from mnist_tfx.components.trainer.training_data import DecodedExamples
from mnist_tfx.contract.cpus import cpu_flags
from tests.fixtures.tiny_run import TinyRun
from tests.fixtures.training import NORMALIZATION, SHAPE, config, trained

GRADIENT = np.array([0.5, -2.0], np.float64)
RATE = 0.1


def after_two_steps(**settings: Any) -> list[float]:
    """Two weights of 1 after two steps of one gradient."""
    optimizer = make_optimizer(TrainingSettings(learning_rate=RATE, **settings), steps_per_epoch=10)
    weight = keras.Variable(np.ones(2, np.float32))
    for _ in range(2):
        optimizer.apply([tf.constant(GRADIENT, tf.float32)], [weight])
    return [float(value) for value in weight.numpy()]


def test_rmsprop_divides_by_the_root_of_the_averaged_squares() -> None:
    """Tieleman and Hinton (2012), lecture 6.5; epsilon under the root, as Keras has it."""
    rho, epsilon, average, weight = 0.8, 1e-3, 0.0, np.ones(2)
    for _ in range(2):
        average = rho * average + (1 - rho) * GRADIENT**2
        weight -= RATE * GRADIENT / np.sqrt(average + epsilon)
    assert after_two_steps(optimizer="rmsprop", rho=rho, epsilon=epsilon) == pytest.approx(list(weight), rel=1e-5)


def test_beta_1_and_epsilon_of_adam() -> None:
    """Kingma and Ba (2015), section 2, with the order of the computations that ends it."""
    beta_1, beta_2, epsilon = 0.5, 0.9, 1e-2
    first, second, weight = np.zeros(2), np.zeros(2), np.ones(2)
    for step in (1, 2):
        first = beta_1 * first + (1 - beta_1) * GRADIENT
        second = beta_2 * second + (1 - beta_2) * GRADIENT**2
        rate = RATE * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        weight -= rate * first / (np.sqrt(second) + epsilon)
    found = after_two_steps(optimizer="adam", beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)
    assert found == pytest.approx(list(weight), rel=1e-5)


def test_settings_of_another_optimizer_are_refused() -> None:
    with pytest.raises(ValueError, match="rho has no effect with optimizer 'adam', only with rmsprop"):
        TrainingSettings(rho=0.9)
    with pytest.raises(ValueError, match="beta_1 has no effect with optimizer 'sgd', only with adam and adamw"):
        TrainingSettings(optimizer="sgd", beta_1=0.9)


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert class_weights(labels, 3, "balanced") == pytest.approx(list(expected))
    assert class_weights(labels, 3, "none") is None
    absent = class_weights(labels, 4, "balanced")
    assert absent is not None and np.isfinite(absent).all()  # a class without examples in split train


def test_a_step_with_class_weights_is_keras_own() -> None:
    random = np.random.default_rng(0)
    pixels, labels = random.random((20, 3, 3, 1), np.float32), random.integers(0, 3, 20)
    weights = [0.5, 1.0, 4.0]
    found = []
    for ours in (True, False):
        keras.utils.set_random_seed(1)
        classifier = build_model(ModelSettings(hidden_layers=(5,)), (3, 3, 1), 3)
        model = SoftTargetsClassifier(classifier, class_weights=weights) if ours else classifier
        model.compile(keras.optimizers.SGD(0.5), keras.losses.CategoricalCrossentropy(from_logits=True))
        model.fit(
            pixels,
            np.eye(3, dtype=np.float32)[labels],
            batch_size=20,
            epochs=3,
            verbose=0,
            class_weight=None if ours else dict(enumerate(weights)),
        )
        found.append(classifier.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({"patience": 0, "min_delta": 1.0}, 2),  # no epoch improves by 1: the second is the first that does not
        ({"patience": 2, "min_delta": 1.0}, 3),
        ({"monitor": "loss", "patience": 1, "min_delta": 100.0}, 2),
        ({"monitor": "accuracy", "patience": 1, "min_delta": 1.0}, 2),
        ({"monitor": "loss", "patience": 1}, 5),  # it falls in every epoch
    ],
)
def test_patience_counts_epochs_of_what_is_monitored(
    settings: dict[str, Any], epochs: int, tiny_run: TinyRun, tmp_path: Path
) -> None:
    _, log = trained(tiny_run.examples, tmp_path / "training", config(tmp_path, **settings))
    assert len(log["history"]) == epochs
    early = epochs < 5
    assert log["stopped"].startswith(f"no better {settings.get('monitor', 'val_accuracy')}" if early else "all epochs")


def test_a_batch_may_be_one_image(tiny_run: TinyRun, tmp_path: Path) -> None:
    _, log = trained(tiny_run.examples, tmp_path / "training", config(tmp_path, batch_size=1, epochs=1))
    assert log["train_examples"] == 480 and np.isfinite(log["history"][0]["loss"])


def bright_and_dark(count: int, rare: int, seed: int) -> DecodedExamples:
    """Images of one brightness each; those of class 1, which is rare, are brighter on average, but not all of them."""
    random = np.random.default_rng(seed)
    labels = (np.arange(count) < rare).astype(np.int64)
    levels = np.clip(random.normal(110 + 40 * labels, 30), 0, 255).astype(np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (count, *SHAPE))
    return DecodedExamples(labels, SHAPE, lambda at: np.ascontiguousarray(images[at]))


def test_a_rare_class_is_found_more_often_with_class_weights(tmp_path: Path) -> None:
    examples = bright_and_dark(400, 20, 0), bright_and_dark(400, 20, 1)
    tested = bright_and_dark(400, 200, 2)
    pixels, labels = NORMALIZATION(tested.read_images(np.arange(400))), tested.labels
    recalls = []
    for weight in ("none", "balanced"):
        settings = config(
            tmp_path / weight, {"hidden_layers": ()}, epochs=10, class_weight=weight, learning_rate=0.01, monitor="loss"
        )
        model, _ = train(settings, NORMALIZATION, *examples, str(tmp_path / "logs"))
        found = np.asarray(model(pixels))[:, :2].argmax(axis=1)
        recalls.append(float((found[labels == 1] == 1).mean()))
    assert recalls[0] < 0.3 and recalls[1] > recalls[0] + 0.3


def test_bfloat16_only_where_the_hardware_is_faster_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_info = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "_CPU_INFO", cpu_info)
    for line, expected in (
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16", "mixed_bfloat16"),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f avx512_bf16", "float32"),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16 amx_bf16 amx_tile", "mixed_bfloat16"),
        ("Features\t: fp asimd bf16", "mixed_bfloat16"),
        ("flags\t\t: fpu avx2 avx512f", "float32"),
        ("model name\t: avx512_bf16", "float32"),
    ):
        cpu_info.write_text(f"processor\t: 0\n{line}\n")
        assert hardware_precision("auto") == expected, line
    assert [hardware_precision(wanted) for wanted in ("float32", "mixed_bfloat16")] == ["float32", "mixed_bfloat16"]
    cpu_info.unlink()
    assert hardware_precision("auto") == "float32" and cpu_flags(cpu_info) == set()
