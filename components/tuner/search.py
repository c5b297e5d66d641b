"""The Tuner's `tuner_fn`: trials that train as the Trainer does, compared on split eval."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import time
from dataclasses import replace

import keras
import keras_tuner
import tensorflow as tf
import tensorflow_transform as tft
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.errors import FailedTrialError, FatalError
from pydantic import ValidationError
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from mnist_tfx.components.settings import DistillationSettings
from mnist_tfx.components.trainer.config import TrainerConfig, identity_digest
from mnist_tfx.components.trainer.fn_args import trainer_config
from mnist_tfx.components.trainer.training import train
from mnist_tfx.components.trainer.training_data import decode_examples
from mnist_tfx.components.transform.preprocessing import Normalization
from mnist_tfx.components.tuner.hyperparameters import EPOCHS, settings_found, with_settings
from mnist_tfx.components.tuner.oracles import BayesianOptimizationOracle, HyperbandOracle
from mnist_tfx.components.tuner.results import short
from mnist_tfx.components.tuner.settings import TunerSettings
from mnist_tfx.components.tuner.space import search_space
from mnist_tfx.components.whole_files import write_whole
from mnist_tfx.contract.errors import PipelineError

_PROGRESS = logging.getLogger("mnist_tfx.progress")
_MILESTONE = {"milestone": True}  # a line that is shown however short a time ago another one was
PROJECT_PREFIX = "tuner-"  # of the folders of searches, beside the training backups


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Makes the search that the recipe describes; TFX calls it by its import path."""
    return TunerFnResult(RecipeTuner(trainer_config(fn_args), fn_args), fit_kwargs={})


class RecipeTuner(BaseTuner):
    """Trains a recipe with other settings, trial after trial.

    A search that was killed goes on when it is started again: keras-tuner has the finished trials in its project
    folder, and the training of the trial that was cut short goes on from its own backup. Another recipe, other data or
    other code make another project; more `trials` do not.

    Hyperband's later rounds train anew with more epochs, rather than go on: a learning-rate schedule spans all epochs,
    and the shorter training's has come to its end. Trials train without teachers.
    """

    def __init__(self, config: TrainerConfig, fn_args: FnArgs) -> None:
        """Takes the Trainer's configuration, with the recipe's section `tuner`, and where TFX has the data."""
        settings = config.tuner or TunerSettings()
        self._config = replace(config, distillation=DistillationSettings(), tuner=None)
        self._settings, self._fn_args = settings, fn_args
        monitor = config.training.monitor
        common = {
            "objective": keras_tuner.Objective(monitor, "max" if monitor.endswith("accuracy") else "min"),
            "hyperparameters": search_space(settings.space),
            "allow_new_entries": False,
            "seed": config.training.seed + 1,  # keras-tuner takes 0 for none
            # Never: however many trials in a row were no good, the next ones may be.
            "max_consecutive_failed_trials": trial_count(settings) + 1,
        }
        if settings.strategy == "hyperband":
            oracle = HyperbandOracle(max_epochs=settings.max_epochs, factor=settings.factor, **common)
        else:
            oracle = BayesianOptimizationOracle(max_trials=settings.trials, **common)
        # TFX asks for so many results, and keras-tuner fails where Hyperband leaves it at None.
        oracle.max_trials = trial_count(settings)
        oracle.verbose = 0  # its own report, which goes to the log, draws tables
        project = PROJECT_PREFIX + _digest(self._config, settings)
        _remove_if_broken(os.path.join(config.backup_dir, project))
        super().__init__(oracle, directory=config.backup_dir, project_name=project)

    def search(self) -> None:
        """Reads the data, runs the trials that are missing.

        Raises:
            PipelineError: no trial came to its end.
        """
        done = sum(trial.status == TrialStatus.COMPLETED for trial in self.oracle.trials.values())
        if done:
            _PROGRESS.info("going on after %d finished trials", done, extra=_MILESTONE)
        image_shape = self._config.image_shape
        self._normalization = Normalization.of_graph(
            tft.TFTransformOutput(self._fn_args.transform_graph_path), image_shape
        )
        with tempfile.TemporaryDirectory(prefix="decoded-") as cache_dir:
            self._train_examples, self._eval_examples = (
                decode_examples(files, image_shape, cache_dir)
                for files in (self._fn_args.train_files, self._fn_args.eval_files)
            )
            super().search()
        if not any(trial.status == TrialStatus.COMPLETED for trial in self.oracle.trials.values()):
            last = self.oracle.trials[self.oracle.end_order[-1]]
            raise PipelineError(f"no trial came to its end; the last one {last.message}")

    def run_trial(self, trial: Trial) -> dict[str, float]:
        """Trains once; returns the best epoch's metrics on split eval."""
        started = time.monotonic()
        values = trial.hyperparameters.values
        keras.backend.clear_session()
        try:
            config = with_settings(self._config, settings_found(values))
            epochs = values.get(EPOCHS, self._settings.max_epochs)
            config = replace(config, training=config.training.model_copy(update={"epochs": epochs}))
            _, log = train(
                config,
                self._normalization,
                self._train_examples,
                self._eval_examples,
                os.path.join(self.get_trial_dir(trial.trial_id), "logs"),
            )
        except (PipelineError, ValidationError) as error:  # the settings were no good: the next ones may be
            why = str(error)
            if isinstance(error, ValidationError):  # the recipe's other settings exclude them
                why = error.errors()[0]["msg"].removeprefix("Value error, ")
            self._told = f"failed: {why}"
            raise FailedTrialError(why) from error
        except Exception as error:  # ours: every further trial would meet it
            raise FatalError(f"a trial broke off: {type(error).__name__}: {error}") from error
        best = log["history"][log["best_epoch"] - 1]
        monitor = config.training.monitor
        seconds = time.monotonic() - started
        self._told = f"{monitor} {best[monitor]:.4f} in {len(log['history'])} epochs, {seconds:.1f} s"
        return {key: best[key] for key in ("loss", "accuracy", "val_loss", "val_accuracy")}

    def save(self) -> None:
        """As keras-tuner does, whole or not at all."""
        self.oracle.save()
        write_whole(self._get_tuner_fname(), json.dumps(self.get_state()).encode())

    def on_trial_end(self, trial: Trial) -> None:
        """Saves what came out, and tells it: whoever has read the line finds the trial done after a kill."""
        if trial.message:  # keras-tuner's is the whole stack
            trial.message = self._told
        super().on_trial_end(trial)
        found = settings_found(trial.hyperparameters.values)
        settings = ", ".join(f"{key} {short(value)}" for key, value in found.items())
        _PROGRESS.info(
            "trial %d of %d: %s; %s",
            int(trial.trial_id) + 1,
            trial_count(self._settings),
            self._told,
            settings,
            extra=_MILESTONE,
        )


def trial_count(settings: TunerSettings) -> int:
    """How many trials a search has at most (fewer where the space has fewer points).

    Hyperband's is the sum over its brackets' rounds, with the sizes of keras-tuner's `HyperbandOracle`.
    """
    if settings.strategy == "bayesian":
        return settings.trials
    factor, brackets, epochs = settings.factor, 0, float(settings.max_epochs)
    while epochs >= 1:
        epochs, brackets = epochs / factor, brackets + 1
    last_size = math.ceil(1 + math.log(settings.max_epochs, factor))
    return sum(
        math.ceil(last_size / (bracket + 1) * factor ** (bracket - a_round))
        for bracket in range(brackets)
        for a_round in range(bracket + 1)
    )


def _digest(config: TrainerConfig, settings: TunerSettings) -> str:
    """Names a search by all that decides how its trials come out."""
    identity = {**config.identity(), "tuner": settings.model_dump(mode="json", exclude={"tune", "trials"})}
    return identity_digest(identity)


def _remove_if_broken(project: str) -> None:
    """Removes a project of which a file is not whole, as a full disk or a machine that lost its power leaves it."""
    for pattern in ("*.json", os.path.join("trial_*", "trial.json")):
        for path in tf.io.gfile.glob(os.path.join(project, pattern)):
            try:
                with tf.io.gfile.GFile(path) as file:
                    json.load(file)
            except ValueError:
                _PROGRESS.info("the search begins anew: %s is not whole", path, extra=_MILESTONE)
                tf.io.gfile.rmtree(project)
                return
