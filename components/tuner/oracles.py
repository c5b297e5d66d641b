"""keras-tuner's oracles, whose files are written whole or not at all: a kill at any moment loses no finished trial."""

from __future__ import annotations

import json
import os

import keras_tuner
from keras_tuner.engine.trial import Trial

from mnist_tfx.components.whole_files import write_whole


class _WholeFiles(keras_tuner.Oracle):
    def save(self) -> None:
        write_whole(self._get_oracle_fname(), json.dumps(self.get_state()).encode())

    def _save_trial(self, trial: Trial) -> None:
        path = os.path.join(self._get_trial_dir(trial.trial_id), "trial.json")
        write_whole(path, json.dumps(trial.get_state()).encode())


class HyperbandOracle(_WholeFiles, keras_tuner.oracles.HyperbandOracle):
    """Hyperband (Li et al. 2018)."""


class BayesianOptimizationOracle(_WholeFiles, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimization with Gaussian processes."""
