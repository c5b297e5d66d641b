"""The range test: curves with a known answer, curves that have none, and a real training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mnist_tfx.components.range_test.curve import Curve, measure, suggest
from mnist_tfx.components.range_test.run import measure_curve
from mnist_tfx.components.settings import AugmentationSettings, DistillationSettings, ModelSettings, TrainingSettings
from mnist_tfx.components.trainer.config import TrainerConfig
from mnist_tfx.components.trainer.training import train
from mnist_tfx.components.trainer.training_data import DecodedExamples, decode_examples
from mnist_tfx.components.transform.preprocessing import Normalization
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.contract.names import EVAL, TRAIN
from tests.fixtures.tiny_run import TinyRun

SHAPE = (28, 28, 1)
NORMALIZATION = Normalization(np.full(SHAPE, 1 / 255, np.float32), np.zeros(SHAPE, np.float32))


def regression(curvature: float, dimensions: int = 20) -> Callable[[float], float]:
    """Gradient descent on noisy linear regression, whose loss has this curvature in every direction.

    It is stable below a rate of 2 / curvature, and fastest at 1 / curvature.
    """
    rng = np.random.default_rng(0)
    truth = rng.normal(size=dimensions)
    weights = np.zeros(dimensions)

    def step(rate: float) -> float:
        nonlocal weights
        inputs = rng.normal(size=(256, dimensions)) * math.sqrt(curvature)
        errors = inputs @ weights - (inputs @ truth + rng.normal(size=256) * math.sqrt(curvature))
        weights = weights - rate * inputs.T @ errors / len(errors)
        return float((errors**2).mean() / 2)

    return step


@pytest.mark.parametrize("curvature", [0.1, 1.0, 100.0])
def test_it_finds_the_order_of_magnitude_that_is_known(curvature: float) -> None:
    fastest = 1 / curvature
    suggestion = suggest(measure(regression(curvature), 1e-6, 1e3), 1e-6, 1e3)
    assert fastest / 10 < suggestion.learning_rate < fastest
    assert suggestion.steepest < suggestion.lowest < 2 * fastest


def test_the_test_ends_where_the_loss_blows_up() -> None:
    curve = measure(regression(1.0), 1e-4, 1e6)
    assert 1.0 < curve.rates[-1] < 100.0
    assert curve.smoothed[-1] > 2 * curve.smoothed.min()
    assert np.isfinite(curve.losses).all()


def test_the_rates_rise_by_one_factor_through_the_range() -> None:
    curve = measure(lambda rate: 1.0, 1e-3, 10.0, steps=5)
    np.testing.assert_allclose(curve.rates, [1e-3, 1e-2, 1e-1, 1.0, 10.0])


def test_the_moving_average_does_not_begin_at_0() -> None:
    np.testing.assert_allclose(measure(lambda rate: 2.5, steps=60).smoothed, 2.5)


def test_a_loss_that_is_no_number_ends_the_test() -> None:
    curve = measure(lambda rate: 1.0 if rate < 1e-3 else math.nan)
    assert curve.rates[-1] < 1e-3
    assert len(curve.rates) == len(curve.losses) == len(curve.smoothed)


@pytest.mark.parametrize(
    ("loss", "reason", "remedy"),
    [
        (lambda rate: 2.3, "flat", "--min-rate 1e-08 --max-rate 1000"),
        (lambda rate: 2.3 + 0.1 * math.sin(1e4 * rate), "flat", "wider range"),
        (lambda rate: 2.3 - 0.3 * math.log10(rate / 1e-6), "not risen again at 10", "--max-rate 1000"),
        (lambda rate: 1.0 + math.log10(rate / 1e-6) ** 4, "only rises", "--min-rate 1e-09"),
        (lambda rate: math.inf, "no finite number", "--min-rate 1e-09"),
    ],
)
def test_a_curve_without_a_minimum_suggests_nothing(loss: Callable[[float], float], reason: str, remedy: str) -> None:
    with pytest.raises(PipelineError, match="no minimum") as refusal:
        suggest(measure(loss))
    assert reason in str(refusal.value)
    assert remedy in str(refusal.value)
    assert refusal.value.exit_code == 1


def config(folder: Path, **training: object) -> TrainerConfig:
    return TrainerConfig(
        dataset="kmnist",
        data_fingerprint="abc",
        class_names=tuple("abcdefghij"),
        image_shape=SHAPE,
        normalization="unit",
        model=ModelSettings(hidden_layers=(16,)),
        # The smoothing keeps the loss of what is learnt by heart above 0: at high rates it rises again.
        training=TrainingSettings.model_validate(
            {"label_smoothing": 0.1, "batch_size": 60, "epochs": 3, "patience": 3, **training}
        ),
        augmentation=AugmentationSettings(),
        distillation=DistillationSettings(),
        code_version="1",
        backup_dir=str(folder),
    )


@pytest.fixture(scope="module")
def splits(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[DecodedExamples, DecodedExamples]:
    """Splits train and eval."""
    folder = str(tmp_path_factory.mktemp("decoded"))
    train_examples, eval_examples = (
        decode_examples([str(tiny_run.examples / f"Split-{split}" / "*")], SHAPE, folder) for split in (TRAIN, EVAL)
    )
    return train_examples, eval_examples


@pytest.fixture(scope="module")
def curve(splits: tuple[DecodedExamples, DecodedExamples], tmp_path_factory: pytest.TempPathFactory) -> Curve:
    """That of a small net."""
    return measure_curve(config(tmp_path_factory.mktemp("curve")), NORMALIZATION, splits[0])


def test_the_suggestion_for_a_real_net_trains_better_than_far_from_it(
    splits: tuple[DecodedExamples, DecodedExamples], curve: Curve, tmp_path: Path
) -> None:
    suggested = suggest(curve).learning_rate

    def loss_after_training(rate: float) -> float:
        settings = config(tmp_path, learning_rate=rate, monitor="val_loss")
        _, log = train(settings, NORMALIZATION, *splits, str(tmp_path / "logs"))
        return float(min(row["val_loss"] for row in log["history"]))

    assert loss_after_training(suggested) < min(
        loss_after_training(suggested / 50), loss_after_training(suggested * 50)
    )


def test_the_same_seed_gives_the_same_curve(
    splits: tuple[DecodedExamples, DecodedExamples], curve: Curve, tmp_path: Path
) -> None:
    again = measure_curve(config(tmp_path), NORMALIZATION, splits[0])
    np.testing.assert_array_equal(again.losses, curve.losses)


def test_the_loss_at_the_first_rate_is_that_of_an_untrained_net(curve: Curve) -> None:
    assert curve.losses[:3] == pytest.approx(math.log(10), abs=0.8)  # a rate of 1e-6 changes next to nothing
    assert curve.smoothed.min() < 0.7 * curve.losses[0]


def test_the_curve_weighs_the_classes_as_the_training_will(
    splits: tuple[DecodedExamples, DecodedExamples], curve: Curve, tmp_path: Path
) -> None:
    """Two of ten classes are there, one of them in a tenth of the images: all weigh a fifth on average."""
    train_examples, _ = splits
    rare = np.where(np.arange(len(train_examples.labels)) % 10, 0, 1)
    few = replace(train_examples, labels=rare)
    plain, balanced = (
        measure_curve(config(tmp_path, class_weight=how, seed=3), NORMALIZATION, few, steps=5)
        for how in ("none", "balanced")
    )
    assert balanced.losses[0] < 0.5 * plain.losses[0]
