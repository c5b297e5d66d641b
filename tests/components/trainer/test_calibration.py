"""One temperature brings probabilities to how often they are right, and changes no answer."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.trainer.calibration import expected_calibration_error, fit_temperature
from mnist_tfx.components.trainer.run_fn import TRAINING_LOG
from mnist_tfx.contract import names as features
from tests.fixtures.tiny_run import TinyRun, read_split

Floats = npt.NDArray[np.float64]


def drawn(temperature: float, count: int = 20_000) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Log probabilities that are too sure by a factor, and labels drawn from the true ones."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (count, 5))
    true = softmax(logits)
    labels = (true.cumsum(axis=1) < random.random((count, 1))).sum(axis=1)
    return np.log(softmax(logits * temperature)), labels


def softmax(logits: Floats) -> Floats:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_spoilt_probabilities_is_found(temperature: float) -> None:
    log_probabilities, labels = drawn(temperature)
    found = fit_temperature(log_probabilities, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    mended = softmax(log_probabilities / found)
    assert expected_calibration_error(mended, labels) < 0.02
    if temperature != 1.0:
        assert expected_calibration_error(np.exp(log_probabilities), labels) > 0.05
    assert (mended.argmax(axis=1) == log_probabilities.argmax(axis=1)).all()


def test_a_few_examples_that_are_all_right_do_not_make_a_model_sure() -> None:
    log_probabilities = np.log(np.full((10, 2), [0.9, 0.1]))
    assert 0.4 < fit_temperature(log_probabilities, np.zeros(10, np.int64)) < 1.0


def test_the_error_is_that_of_guo_and_others() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.05, 0.95], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 0])
    # Bins [0.933, 1]: three examples of confidence 0.95, two right; [0.6, 0.667): one of 0.6, right.
    assert expected_calibration_error(probabilities, labels) == pytest.approx(3 / 4 * (0.95 - 2 / 3) + 1 / 4 * 0.4)


def test_the_exported_model_has_it_and_the_training_log_tells_it(tiny_run: TinyRun) -> None:
    log = json.loads((tiny_run.artifact("Trainer", "model") / TRAINING_LOG).read_text())["calibration"]
    assert log["temperature"] == read_metadata(str(tiny_run.model))["temperature"] != 1.0
    assert log["error_after"] <= log["error_before"] + 0.02  # it is the likelihood that is fitted
    images, labels = zip(*read_split(tiny_run.examples, "eval"), strict=True)
    classify = tf.saved_model.load(str(tiny_run.model)).signatures[features.ENCODED_IMAGES]
    answer = classify(**{features.ENCODED_IMAGES: tf.constant(images)})[features.PROBABILITIES].numpy()
    error = expected_calibration_error(answer.astype(np.float64), np.array(labels))
    assert error == pytest.approx(log["error_after"], abs=1e-3)
