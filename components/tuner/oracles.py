"""keras-tuner's oracles, whose files are written whole or not at all: a kill at any moment loses no finished trial."""

from __future__ import annotations

import json
import os

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from mnist_tfx.components.whole_files import write_whole


class _WholeFiles(keras_tuner.Oracle):
    def save(self) -> None:
        write_whole(self._get_oracle_fname(), json.dumps(self.get_state()).encode())

    def _save_trial(self, trial: Trial) -> None:
        path = os.path.join(self._get_trial_dir(trial.trial_id), "trial.json")
        write_whole(path, json.dumps(trial.get_state()).encode())

    def reload(self) -> None:
        """As keras-tuner does, and settles what a kill left between a trial's file and the oracle's, written after it.

        A trial that had just been begun, and that the oracle does not know, is begun anew: keras-tuner would count it
        and never run it. One that had just been completed is not run again.
        """
        super().reload()
        self.trials: dict[str, Trial] = {
            number: trial for number, trial in self.trials.items() if number in self.start_order
        }
        done = [number for number in self._retry_queue if self.trials[number].status == TrialStatus.COMPLETED]
        self._retry_queue: list[str] = [number for number in self._retry_queue if number not in done]
        self.end_order += [number for number in done if number not in self.end_order]


class HyperbandOracle(_WholeFiles, keras_tuner.oracles.HyperbandOracle):
    """Hyperband (Li et al. 2018)."""


class BayesianOptimizationOracle(_WholeFiles, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimization with Gaussian processes."""
