"""The training step of our own: mixup and distillation, compared with Keras' step on targets made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from mnist_tfx.components.settings import ModelSettings
from mnist_tfx.components.trainer import training
from mnist_tfx.components.trainer.convolutional import build_teacher
from mnist_tfx.components.trainer.dense import build_model
from mnist_tfx.components.trainer.soft_targets import SoftTargetsClassifier, mean_probabilities, mix
from tests.fixtures.tiny_run import TinyRun
from tests.fixtures.training import config, logits, trained

SHAPE = (6, 5, 1)
CLASSES = 4
COUNT = 25
Floats = npt.NDArray[np.float32]


def build(seed: int = 1, **settings: Any) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return build_model(ModelSettings.model_validate({"hidden_layers": (7,)} | settings), SHAPE, CLASSES)


def compiled(model: keras.Model, label_smoothing: float = 0.0) -> keras.Model:
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def data() -> tuple[Floats, Floats]:
    """Pixels and one-hot targets."""
    rng = np.random.default_rng(0)
    return rng.random((COUNT, *SHAPE), np.float32), np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, COUNT)]


def assert_same_weights(first: keras.Model, second: keras.Model) -> None:
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_mixup_blends_pixels_and_targets_alike_and_targets_sum_to_1() -> None:
    _, targets = data()
    # Pixels that are a linear function of the targets stay that, if both are blended in the same way.
    pictures = np.random.default_rng(1).random((CLASSES, 30), np.float32)
    pixels = (targets @ pictures).reshape(COUNT, *SHAPE)
    mixed, mixed_targets = (np.asarray(made) for made in mix(pixels, targets, 0.5, keras.random.SeedGenerator(0)))
    np.testing.assert_allclose(mixed_targets.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed.reshape(COUNT, -1), mixed_targets @ pictures, atol=1e-5)
    assert ((mixed_targets > 0).sum(axis=1) <= 2).all()
    assert ((mixed_targets > 0.01) & (mixed_targets < 0.99)).any()


def shares(alpha: float, count: int = 20_000, seed: int = 0) -> Floats:
    """How much of each image itself is in its blend with the next."""
    targets = np.eye(2, dtype=np.float32)[np.arange(count) % 2]
    _, mixed = mix(np.zeros((count, 1, 1, 1), np.float32), targets, alpha, keras.random.SeedGenerator(seed))
    return np.asarray(np.asarray(mixed)[np.arange(count), np.arange(count) % 2])


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 8.0])
def test_mixups_shares_are_of_the_beta_distribution(alpha: float) -> None:
    drawn = shares(alpha)
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.01)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_mixups_shares_are_finite_where_gamma_variables_are_not() -> None:
    assert np.isfinite(shares(0.01)).all()


def test_the_seed_decides_how_images_are_mixed() -> None:
    np.testing.assert_array_equal(shares(0.5, 50), shares(0.5, 50))
    assert not np.array_equal(shares(0.5, 50), shares(0.5, 50, seed=1))


def test_each_step_mixes_anew() -> None:
    generator, (pixels, targets) = keras.random.SeedGenerator(0), data()
    first, second = (np.asarray(mix(pixels, targets, 0.5, generator)[1]) for _ in range(2))
    assert not np.array_equal(first, second)


def test_a_step_with_mixup_is_keras_own_on_what_mix_gives() -> None:
    ours, theirs = SoftTargetsClassifier(build(), mixup=0.5), compiled(build())
    compiled(ours)
    pixels, targets = data()
    ours.seed_generator.state.assign([1, 2])
    logs = ours.train_on_batch(pixels, targets, return_dict=True)
    generator = keras.random.SeedGenerator(0)
    generator.state.assign([1, 2])
    mixed, mixed_targets = (np.asarray(made) for made in mix(pixels, targets, 0.5, generator))
    assert logs == pytest.approx(theirs.train_on_batch(mixed, mixed_targets, return_dict=True), rel=1e-5)
    assert_same_weights(ours.classifier, theirs)


def test_without_mixup_and_teachers_weight_a_training_is_keras_own() -> None:
    settings: dict[str, Any] = {"l2": 0.01, "batch_normalization": True}
    pixels, targets = data()
    theirs = compiled(build(**settings), label_smoothing=0.1)
    ours = compiled(SoftTargetsClassifier(build(**settings), teachers=[build(2)], weight=0.0), label_smoothing=0.1)
    history, own_history = (
        # The last batch is smaller than the others, which the epoch's mean loss must take into account.
        model.fit(pixels, targets, batch_size=10, epochs=3, shuffle=False, verbose=0).history
        for model in (theirs, ours)
    )
    assert own_history.keys() == history.keys() == {"loss", "accuracy"}
    for name, values in history.items():
        assert own_history[name] == pytest.approx(values, rel=1e-5), name
    assert_same_weights(ours.classifier, theirs)


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_distillations_targets_are_the_weighted_mean_of_labels_and_teachers(weight: float) -> None:
    teachers = [build(2, hidden_layers=(50,)), build(3, hidden_layers=())]
    pixels, targets = data()
    odds = [np.exp(np.asarray(teacher(pixels))) for teacher in teachers]
    mean = sum(one / one.sum(axis=1, keepdims=True) for one in odds) / 2
    np.testing.assert_allclose(mean_probabilities([teacher.call for teacher in teachers], pixels), mean, atol=1e-6)
    theirs, ours = compiled(build()), compiled(SoftTargetsClassifier(build(), teachers=teachers, weight=weight))
    logs = ours.train_on_batch(pixels, targets, return_dict=True)
    by_hand = ((1 - weight) * targets + weight * mean).astype(np.float32)
    assert logs["loss"] == pytest.approx(theirs.train_on_batch(pixels, by_hand, return_dict=True)["loss"], rel=1e-5)
    assert_same_weights(ours.classifier, theirs)
    if weight == 1.0:  # then the labels are not asked
        other = compiled(SoftTargetsClassifier(build(), teachers=teachers, weight=weight))
        other.train_on_batch(pixels, targets[::-1])
        assert_same_weights(other, ours)


def test_teachers_answer_to_the_mixed_images() -> None:
    teacher = build(2)
    ours = compiled(SoftTargetsClassifier(build(), mixup=0.5, teachers=[teacher], weight=0.6))
    pixels, targets = data()
    ours.seed_generator.state.assign([1, 2])
    ours.train_on_batch(pixels, targets)
    generator = keras.random.SeedGenerator(0)
    generator.state.assign([1, 2])
    mixed, mixed_targets = (np.asarray(made) for made in mix(pixels, targets, 0.5, generator))
    theirs = compiled(build())
    taught = np.asarray(mean_probabilities([teacher.call], mixed))
    theirs.train_on_batch(mixed, 0.4 * mixed_targets + 0.6 * taught)
    assert_same_weights(ours.classifier, theirs)


def test_teachers_are_not_trained_and_not_part_of_the_student() -> None:
    teacher = build(2, batch_normalization=True, dropout=0.5)
    before = teacher.get_weights()
    student = build()
    ours = compiled(SoftTargetsClassifier(student, teachers=[teacher], weight=0.7))
    pixels, targets = data()
    ours.fit(pixels, targets, epochs=3, verbose=0)
    for weight, expected in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert [id(weight) for weight in ours.weights] == [id(weight) for weight in student.weights]


def test_outside_training_it_is_the_classifier() -> None:
    classifier = build(dropout=0.5)
    ours = compiled(SoftTargetsClassifier(classifier, mixup=0.5, teachers=[build(2)], weight=0.9))
    pixels, targets = data()
    np.testing.assert_array_equal(ours(pixels), classifier(pixels, training=False))
    loss, accuracy = ours.evaluate(pixels, targets, verbose=0)
    expected = np.asarray(classifier(pixels, training=False))
    assert loss == pytest.approx(float(keras.losses.categorical_crossentropy(targets, expected, True).numpy().mean()))
    assert accuracy == pytest.approx((expected.argmax(axis=1) == targets.argmax(axis=1)).mean())


def test_a_student_learns_from_models_of_the_same_recipe_and_other_seeds(tiny_run: TinyRun, tmp_path: Path) -> None:
    settings = config(tmp_path, distillation={"teachers": 2, "teacher_epochs": 2, "weight": 1.0}, epochs=1, seed=3)
    model, log = trained(tiny_run.examples, tmp_path, settings)
    assert [settings.teacher(number).training.seed for number in (1, 2)] == [1003, 2003]
    alone, alone_log = trained(tiny_run.examples, tmp_path / "alone", config(tmp_path / "alone", epochs=2, seed=1003))
    best = alone_log["history"][alone_log["best_epoch"] - 1]
    first, second = log["teachers"]
    assert (first["best_epoch"], first["val_accuracy"]) == (alone_log["best_epoch"], best["val_accuracy"])
    assert second["val_accuracy"] != first["val_accuracy"]
    assert not np.allclose(logits(model, tiny_run), logits(alone, tiny_run))
    assert len(log["history"]) == 1


def test_a_dense_student_learns_from_a_convolutional_teacher(tiny_run: TinyRun, tmp_path: Path) -> None:
    taught = {"teachers": 1, "teacher_epochs": 4, "teacher_channels": (4, 6, 8), "weight": 1.0}
    settings = config(tmp_path, distillation=taught, epochs=4)
    assert settings.teacher_channels == () and settings.teacher(1).teacher_channels == (4, 6, 8)
    model, log = trained(tiny_run.examples, tmp_path, settings)
    kinds = {type(layer) for layer in model.layers}
    assert keras.layers.Dense in kinds and keras.layers.Conv2D not in kinds
    [teacher] = log["teachers"]
    alone, _ = trained(tiny_run.examples, tmp_path / "alone", config(tmp_path / "alone", epochs=4))
    assert teacher["val_accuracy"] > 0.2
    assert not np.allclose(logits(model, tiny_run), logits(alone, tiny_run))


@pytest.mark.parametrize("channels", [(), (4, 6)])
def test_a_teacher_teaches_in_the_trainings_precision(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: tuple[int, ...]
) -> None:
    taught = {"teachers": 1, "teacher_epochs": 1, "teacher_channels": channels, "weight": 1.0}
    settings = config(tmp_path, distillation=taught, epochs=1, precision="mixed_bfloat16")
    teachers = []

    class Observed(SoftTargetsClassifier):
        def __init__(self, classifier: keras.Model, **options: Any) -> None:
            teachers.extend(options["teachers"])
            super().__init__(classifier, **options)

    monkeypatch.setattr(training, "SoftTargetsClassifier", Observed)
    trained(tiny_run.examples, tmp_path, settings)
    [teacher] = teachers
    assert [layer.compute_dtype for layer in teacher.layers] == ["bfloat16"] * (len(teacher.layers) - 1) + ["float32"]


@pytest.mark.parametrize("shape", [(28, 28, 1), (5, 6, 3)])
def test_a_teachers_form(shape: tuple[int, int, int]) -> None:
    model = build_teacher((3, 4, 5), shape, 10)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [3, 4, 4, 5, 5]
    assert np.asarray(model(np.zeros((2, *shape), np.float32))).shape == (2, 10)
