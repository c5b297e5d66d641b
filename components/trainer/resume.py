"""What survives a killed training: its early stopping, and the teachers that were trained before it.

Keras' `BackupAndRestore` brings back weights, optimizer and epoch, but `EarlyStopping` starts over: it forgets the best
weights and how long it has waited. This one keeps both, and the history, beside the backup.
"""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from mnist_tfx.components.whole_files import write_whole

_TRAINED_WEIGHTS, _TRAINED_LOG = "weights.npz", "training.json"
# What reading raises where a kill or a power cut left files that are not whole; and what else, where it fails.
_CUT_SHORT = (ValueError, KeyError, EOFError, zipfile.BadZipFile, tf.errors.DataLossError)
_NOT_READ = (*_CUT_SHORT, OSError, tf.errors.OpError)


def backed_up_epoch(backup_dir: str, steps_per_epoch: int) -> int:
    """The epoch at which `BackupAndRestore` will go on: 0 if there is no backup.

    One that is not whole, as a kill in the middle of writing leaves it, is removed: training then begins anew.
    """
    if not tf.io.gfile.exists(backup_dir):
        return 0
    try:
        with tf.io.gfile.GFile(os.path.join(backup_dir, "training_metadata.json")) as file:
            epoch = int(json.load(file)["epoch"])
        with tf.io.gfile.GFile(os.path.join(backup_dir, "latest.weights.h5"), "rb") as file:
            content = io.BytesIO(file.read())
        with h5py.File(content) as weights:
            steps_done = int(weights["optimizer/vars/0"][()])
        _load_state(backup_dir, epoch)
        if steps_done == epoch * steps_per_epoch:  # weights and metadata are of the same epoch
            return epoch
    except _NOT_READ:
        pass
    tf.io.gfile.rmtree(backup_dir)
    return 0


def keep_trained(folder: str, weights: Sequence[np.ndarray], log: Mapping[str, Any]) -> None:
    """Keeps the weights of a model that has been trained, and its training log, for `kept_trained`."""
    tf.io.gfile.makedirs(folder)
    _write_weights(os.path.join(folder, _TRAINED_WEIGHTS), weights)
    write_whole(os.path.join(folder, _TRAINED_LOG), json.dumps(log).encode())


def kept_trained(folder: str) -> tuple[list[np.ndarray], dict[str, Any]] | None:
    """The weights and the log that `keep_trained` kept: None if a kill left one of them, or neither.

    What is not whole, as a power cut leaves it, is removed.
    """
    log_path, weights_path = os.path.join(folder, _TRAINED_LOG), os.path.join(folder, _TRAINED_WEIGHTS)
    if not (tf.io.gfile.exists(log_path) and tf.io.gfile.exists(weights_path)):
        return None
    try:
        with tf.io.gfile.GFile(log_path) as file:
            return _read_weights(weights_path), json.load(file)
    except _CUT_SHORT:  # what cannot be read just now may be whole: it is the whole training
        tf.io.gfile.rmtree(folder)
        return None


class EpochSeeds(keras.callbacks.Callback):
    """Sets the random numbers of dropout and mixup by seed and epoch alone: no backup holds how far they had come."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for index, generator in enumerate(_seed_generators(self.model)):
            generator.state.assign(np.random.SeedSequence([self._seed, epoch, index]).generate_state(2))


def _seed_generators(layer: keras.layers.Layer) -> Iterator[keras.random.SeedGenerator]:
    """Those of a layer, or of a model and its layers, in a fixed order."""
    generator = getattr(layer, "seed_generator", None)
    if generator is not None:
        yield generator
    for inner in getattr(layer, "layers", ()):
        yield from _seed_generators(inner)


class ResumableEarlyStopping(keras.callbacks.EarlyStopping):
    """`EarlyStopping` that saves its state per epoch; must come before `BackupAndRestore` in the list of callbacks."""

    def __init__(self, backup_dir: str, first_epoch: int, **kwargs: Any) -> None:
        """Takes Keras' arguments, the folder that `BackupAndRestore` uses, and what `backed_up_epoch` said of it."""
        super().__init__(**kwargs)
        self._first_epoch = first_epoch
        self.epochs: list[dict[str, float]] = []  # one row per finished epoch: Keras' logs, `epoch` from 1, `seconds`
        self._backup_dir = backup_dir
        self._epoch_started = 0.0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Goes on from the saved state, if there is one."""
        super().on_train_begin(logs)
        if not self._first_epoch:
            return
        state, self.best_weights = _load_state(self._backup_dir, self._first_epoch)
        self.wait, self.best, self.best_epoch = state["wait"], state["best"], state["best_epoch"]
        self.epochs = state["epochs"]

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the epoch's clock."""
        self._epoch_started = time.monotonic()

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Has the moving averages evaluated, where the optimizer keeps them: they are what is kept in the end."""
        self._swap_averages()

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Lets training go on with the weights themselves."""
        self._swap_averages()

    def _swap_averages(self) -> None:
        """Exchanges the trained weights and their moving averages."""
        optimizer = self.model.optimizer
        if not optimizer.use_ema:
            return
        averages = optimizer._model_variables_moving_average  # Keras' own SwapEMAWeights takes them from here, too
        for weight, average in zip(self.model.trainable_variables, averages, strict=True):
            value = weight.numpy()
            weight.assign(average)
            average.assign(value)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Decides as Keras does, then saves what it knows."""
        self._swap_averages()
        super().on_epoch_end(epoch, logs)  # copies the weights if they are the best
        self._swap_averages()
        numbers = {key: float(value) for key, value in (logs or {}).items()}
        self.epochs.append({"epoch": epoch + 1, **numbers, "seconds": time.monotonic() - self._epoch_started})
        tf.io.gfile.makedirs(self._backup_dir)
        if self.best_weights is not None and self.best_epoch == epoch:
            _write_weights(_weights_path(self._backup_dir, epoch), self.best_weights)
        state = {
            "wait": self.wait,
            "best": None if self.best is None else float(self.best),
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
        }
        write_whole(_state_path(self._backup_dir, epoch), json.dumps(state).encode())


def _load_state(folder: str, epochs_done: int) -> tuple[dict[str, Any], list[np.ndarray] | None]:
    """The state of early stopping after so many epochs, and the best weights by then, if it has begun to watch."""
    with tf.io.gfile.GFile(_state_path(folder, epochs_done - 1)) as file:
        state = json.load(file)
    if state["best"] is None:
        return state, None
    return state, _read_weights(_weights_path(folder, state["best_epoch"]))


def _write_weights(path: str, weights: Sequence[np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, *weights)
    write_whole(path, buffer.getvalue())


def _read_weights(path: str) -> list[np.ndarray]:
    with tf.io.gfile.GFile(path, "rb") as file:
        arrays = np.load(io.BytesIO(file.read()))
    return [arrays[f"arr_{i}"] for i in range(len(arrays.files))]


def _state_path(folder: str, epoch: int) -> str:
    return os.path.join(folder, f"early_stopping-{epoch}.json")


def _weights_path(folder: str, epoch: int) -> str:
    return os.path.join(folder, f"best_weights-{epoch}.npz")
