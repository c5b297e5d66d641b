"""Early stopping that survives a killed training.

Keras' `BackupAndRestore` brings back weights, optimizer and epoch, but `EarlyStopping` starts over: it forgets the best
weights and how long it has waited. This one keeps both, and the history, beside the backup.
"""

from __future__ import annotations

import io
import json
import os
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def backed_up_epoch(backup_dir: str) -> int:
    """The epoch at which `BackupAndRestore` will go on, 0 if there is no whole backup (a damaged one is removed)."""
    metadata = os.path.join(backup_dir, "training_metadata.json")
    if not tf.io.gfile.exists(metadata):
        return 0
    try:
        with tf.io.gfile.GFile(metadata) as file:
            epoch = int(json.load(file)["epoch"])
        if tf.io.gfile.exists(_state_path(backup_dir, epoch - 1)):
            return epoch
    except (ValueError, KeyError):
        pass
    tf.io.gfile.rmtree(backup_dir)
    return 0


class ResumableEarlyStopping(keras.callbacks.EarlyStopping):
    """`EarlyStopping` that saves its state per epoch; must come before `BackupAndRestore` in the list of callbacks."""

    def __init__(self, backup_dir: str, **kwargs: Any) -> None:
        """Takes Keras' arguments, and the folder that `BackupAndRestore` uses (and removes when training ends)."""
        super().__init__(**kwargs)
        self.epochs: list[dict[str, float]] = []  # one row per finished epoch: Keras' logs, `epoch` from 1, `seconds`
        self._backup_dir = backup_dir
        self._epoch_started = 0.0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Goes on from the saved state, if there is one."""
        super().on_train_begin(logs)
        done = backed_up_epoch(self._backup_dir)
        if not done:
            return
        with tf.io.gfile.GFile(_state_path(self._backup_dir, done - 1)) as file:
            state = json.load(file)
        self.wait, self.best, self.best_epoch = state["wait"], state["best"], state["best_epoch"]
        self.epochs = state["epochs"]
        with tf.io.gfile.GFile(_weights_path(self._backup_dir, self.best_epoch), "rb") as file:
            arrays = np.load(io.BytesIO(file.read()))
        self.best_weights = [arrays[f"arr_{i}"] for i in range(len(arrays.files))]

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the epoch's clock."""
        self._epoch_started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Decides as Keras does, then saves what it knows."""
        super().on_epoch_end(epoch, logs)
        numbers = {key: float(value) for key, value in (logs or {}).items()}
        self.epochs.append({"epoch": epoch + 1, **numbers, "seconds": time.monotonic() - self._epoch_started})
        tf.io.gfile.makedirs(self._backup_dir)
        if self.best_epoch == epoch:
            buffer = io.BytesIO()
            np.savez(buffer, *self.best_weights)
            _write(_weights_path(self._backup_dir, epoch), buffer.getvalue())
        state = {
            "wait": self.wait,
            "best": float(self.best),
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
        }
        _write(_state_path(self._backup_dir, epoch), json.dumps(state).encode())


def _state_path(folder: str, epoch: int) -> str:
    return os.path.join(folder, f"early_stopping-{epoch}.json")


def _weights_path(folder: str, epoch: int) -> str:
    return os.path.join(folder, f"best_weights-{epoch}.npz")


def _write(path: str, content: bytes) -> None:
    """Writes whole or not at all."""
    with tf.io.gfile.GFile(path + ".partial", "wb") as file:
        file.write(content)
    tf.io.gfile.rename(path + ".partial", path, overwrite=True)
