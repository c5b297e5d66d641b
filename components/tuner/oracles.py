"""keras-tuner's oracles, whose files are written whole or not at all: a kill at any moment loses no finished trial."""

from __future__ import annotations

import json
import os
from typing import Any

import keras_tuner
import tensorflow as tf
from keras_tuner.engine.trial import Trial


class _WholeFiles(keras_tuner.Oracle):
    """Writes what keras-tuner writes, beside the file first."""

    def save(self) -> None:
        _write(self._get_oracle_fname(), self.get_state())

    def _save_trial(self, trial: Trial) -> None:
        _write(os.path.join(self._get_trial_dir(trial.trial_id), "trial.json"), trial.get_state())


class HyperbandOracle(_WholeFiles, keras_tuner.oracles.HyperbandOracle):
    """Hyperband (Li et al. 2018)."""


class BayesianOptimizationOracle(_WholeFiles, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimization with Gaussian processes."""


def _write(path: str, state: dict[str, Any]) -> None:
    with tf.io.gfile.GFile(path + ".partial", "w") as file:
        file.write(json.dumps(state))
    tf.io.gfile.rename(path + ".partial", path, overwrite=True)
