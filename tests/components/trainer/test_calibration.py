"""Two numbers bring probabilities to how often they are right, and change no answer."""

from __future__ import annotations

import json

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.settings import ModelSettings
from mnist_tfx.components.trainer.calibration import Calibration, expected_calibration_error, fit_calibration
from mnist_tfx.components.trainer.dense import build_model
from mnist_tfx.components.trainer.export import ServingModule
from mnist_tfx.components.trainer.run_fn import TRAINING_LOG
from mnist_tfx.contract import names as features
from tests.fixtures.tiny_run import TinyRun, read_split
from tests.fixtures.training import NORMALIZATION, SHAPE

Floats = npt.NDArray[np.float64]


def drawn(true: Floats) -> npt.NDArray[np.int64]:
    """Labels, int64 [N], of probabilities [N, classes]."""
    return np.asarray((true.cumsum(axis=1) < np.random.default_rng(1).random((len(true), 1))).sum(axis=1))


def log_probabilities(count: int = 20_000, classes: int = 5) -> Floats:
    """Of random images, none surer than the rest."""
    return Calibration()(np.random.default_rng(0).normal(0, 2, (count, classes)))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(
    "truth", [Calibration(2.0), Calibration(0.4), Calibration(1.5, 0.8), Calibration(0.6, -0.5), Calibration()]
)
def test_what_mends_probabilities_is_found(truth: Calibration, classes: int) -> None:
    told = log_probabilities(classes=classes)
    true = np.exp(truth(told))
    labels = drawn(true)
    found = fit_calibration(told, labels)
    mended = np.exp(found(told))
    assert np.abs(mended - true).max() < 0.03
    assert found.temperature == pytest.approx(truth.temperature, rel=0.1)
    assert found.bend == pytest.approx(truth.bend, abs=0.1)
    error = expected_calibration_error(mended, labels)
    assert error < 0.012
    if truth != Calibration():
        assert error < expected_calibration_error(np.exp(told), labels) / 2


def test_a_bend_mends_what_a_temperature_cannot() -> None:
    """Both too sure and not sure enough, as label smoothing leaves a model."""
    told = log_probabilities()
    labels = drawn(np.exp(Calibration(4.0, 1.0)(told)))
    likelihoods = {
        bend: max(Calibration(t, bend)(told)[np.arange(len(labels)), labels].mean() for t in np.arange(0.5, 6, 0.05))
        for bend in (0.0, 1.0)
    }
    found = fit_calibration(told, labels)(told)[np.arange(len(labels)), labels].mean()
    assert found == pytest.approx(likelihoods[1.0], abs=1e-3)
    assert found > likelihoods[0.0] + 0.01


def test_a_few_examples_that_are_all_right_do_not_make_a_model_sure() -> None:
    told = np.log(np.full((10, 2), [0.9, 0.1]))
    found = fit_calibration(told, np.zeros(10, np.int64))
    assert 0.9 < np.exp(found(told))[0, 0] < 0.999


@pytest.mark.parametrize("settings", [{}, {"output": "sigmoid"}, {"mirrored_averaging": True}])
def test_the_exported_graph_computes_the_same_and_keeps_the_order(tiny_run: TinyRun, settings: dict[str, str]) -> None:
    keras.utils.set_random_seed(0)
    classes = "ab" if settings.get("output") == "sigmoid" else "abcde"
    model = build_model(ModelSettings.model_validate({"hidden_layers": (8,)} | settings), SHAPE, len(classes))
    graph = tft.TFTransformOutput(str(tiny_run.transform_graph))
    mirrored = bool(settings.get("mirrored_averaging"))
    module = ServingModule(model, graph, NORMALIZATION, classes, SHAPE, mirrored_averaging=mirrored)
    pixels = tf.random.stateless_normal([200, *SHAPE], [1, 2], stddev=3.0)
    before = module.probabilities(pixels).numpy()
    module.calibration = Calibration(0.7, 0.4)
    after = module.probabilities(pixels).numpy()
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(after, np.exp(module.calibration(np.log(before.astype(np.float64)))), atol=1e-5)
    np.testing.assert_array_equal(np.argsort(after, axis=1), np.argsort(before, axis=1))


def test_the_error_is_that_of_guo_and_others() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.05, 0.95], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 0])
    # Bins [0.933, 1]: three examples of confidence 0.95, two right; [0.6, 0.667): one of 0.6, right.
    assert expected_calibration_error(probabilities, labels) == pytest.approx(3 / 4 * (0.95 - 2 / 3) + 1 / 4 * 0.4)


def test_the_exported_model_has_it_and_the_training_log_tells_it(tiny_run: TinyRun) -> None:
    log = json.loads((tiny_run.artifact("Trainer", "model") / TRAINING_LOG).read_text())["calibration"]
    metadata = read_metadata(str(tiny_run.model))
    assert log["temperature"] == metadata["temperature"] != 1.0 and log["bend"] == metadata["bend"]
    assert log["error_after"] <= log["error_before"] + 0.02  # it is the likelihood that is fitted
    images, labels = zip(*read_split(tiny_run.examples, "eval"), strict=True)
    classify = tf.saved_model.load(str(tiny_run.model)).signatures[features.ENCODED_IMAGES]
    answer = classify(**{features.ENCODED_IMAGES: tf.constant(images)})[features.PROBABILITIES].numpy()
    error = expected_calibration_error(answer.astype(np.float64), np.array(labels))
    assert error == pytest.approx(log["error_after"], abs=1e-3)
