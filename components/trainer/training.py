"""Trains the classifier that a recipe describes: from Examples to the model with the best weights."""

from __future__ import annotations

import functools
import logging
import math
import os
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tfx.components.settings import TrainingSettings
from mnist_tfx.components.trainer.config import TrainerConfig, identity_digest
from mnist_tfx.components.trainer.convolutional import build_teacher
from mnist_tfx.components.trainer.dense import build_model
from mnist_tfx.components.trainer.optimization import class_weights, make_optimizer
from mnist_tfx.components.trainer.precision import hardware_precision
from mnist_tfx.components.trainer.resume import (
    EpochSeeds,
    ResumableEarlyStopping,
    backed_up_epoch,
    keep_trained,
    kept_trained,
)
from mnist_tfx.components.trainer.soft_targets import SoftTargetsClassifier
from mnist_tfx.components.trainer.training_data import DecodedExamples, TrainingInput, evaluation_batches
from mnist_tfx.components.transform.preprocessing import Normalization
from mnist_tfx.contract.errors import PipelineError

_PROGRESS = logging.getLogger("mnist_tfx.progress")
EVALUATION_BATCH = 1000
_STEPS_PER_EXECUTION = 50


def train(
    config: TrainerConfig,
    normalization: Normalization,
    train_examples: DecodedExamples,
    eval_examples: DecodedExamples,
    logs_dir: str,
    base_weights: Sequence[npt.NDArray[np.floating[Any]]] = (),
) -> tuple[keras.Model, dict[str, Any]]:
    """Trains with early stopping; goes on where a killed training of the same identity left off.

    With `base_weights` (see `warm_start`) it begins with these.

    Returns:
        The model with its best weights, float32 whatever the training's precision, and the training log (see
        `_training_log`).

    Raises:
        PipelineError: the loss is no longer a finite number.
    """
    started = time.monotonic()
    teachers, teacher_logs = [], []
    teacher_configs = _teacher_configs(config)
    for number, teacher_config in enumerate(teacher_configs, start=1):
        _PROGRESS.info("teacher %d of %d", number, len(teacher_configs))
        teacher_dir = os.path.join(logs_dir, f"teacher-{number}")
        weights, teacher_log = train_once(teacher_config, normalization, train_examples, eval_examples, teacher_dir)
        teachers.append(new_classifier(teacher_config, hardware_precision(config.training.precision)))
        teachers[-1].set_weights(weights)
        best = teacher_log["history"][teacher_log["best_epoch"] - 1]
        teacher_logs.append(
            {"best_epoch": best["epoch"], "val_accuracy": best["val_accuracy"], "seconds": teacher_log["seconds"]}
        )
    settings = config.training
    keras.utils.set_random_seed(settings.seed)
    data = training_input(config, normalization, train_examples)
    backup_dir = os.path.join(config.backup_dir, identity_digest(config.identity()))
    first_epoch = backed_up_epoch(backup_dir, data.steps)
    if first_epoch:
        _PROGRESS.info("going on after epoch %d of an interrupted training", first_epoch)
    strategy = _strategy()
    with strategy.scope():
        model, classifier = compiled_model(
            config,
            make_optimizer(settings, data.steps),
            teachers,
            class_weights(train_examples.labels, len(config.class_names), settings.class_weight),
            metrics=["accuracy"],
            # Several steps in one graph fail on several devices (keras-team/keras#19246).
            steps_per_execution=1 if strategy.num_replicas_in_sync > 1 else min(_STEPS_PER_EXECUTION, data.steps),
        )
        if base_weights:
            classifier.set_weights(base_weights)
    stopping = ResumableEarlyStopping(
        backup_dir,
        first_epoch,
        monitor=settings.monitor,
        mode="max" if settings.monitor.endswith("accuracy") else "min",
        patience=settings.patience,
        min_delta=settings.min_delta,
        start_from_epoch=int(settings.monitor_from * settings.epochs),
        restore_best_weights=True,
    )
    model.fit(
        data.batches(),
        validation_data=evaluation_batches(
            eval_examples, normalization, num_classes=len(config.class_names), batch_size=EVALUATION_BATCH
        ),
        epochs=settings.epochs,
        callbacks=[
            _EpochNumbers(data),
            _FiniteLoss(settings.learning_rate),
            stopping,
            keras.callbacks.BackupAndRestore(backup_dir),
            EpochSeeds(settings.seed),
            keras.callbacks.TensorBoard(logs_dir, write_graph=False),
            keras.callbacks.LambdaCallback(on_epoch_end=functools.partial(_report_epoch, settings.epochs)),
        ],
        shuffle=False,  # TrainingInput does
        verbose=0,
    )
    log = _training_log(stopping, settings, len(train_examples), first_epoch, time.monotonic() - started)
    _PROGRESS.info("training waited %.1f %% of its time for input", 100 * log["input_wait_share"])
    precision = hardware_precision(settings.precision)
    if precision != "float32" or strategy.num_replicas_in_sync > 1:  # a plain model, on one device
        trained_classifier, classifier = classifier, new_classifier(config)
        classifier.set_weights(trained_classifier.get_weights())
    return classifier, log | {"teachers": teacher_logs, "precision": precision}


def train_once(
    config: TrainerConfig,
    normalization: Normalization,
    train_examples: DecodedExamples,
    eval_examples: DecodedExamples,
    logs_dir: str,
    base_weights: Sequence[npt.NDArray[np.floating[Any]]] = (),
) -> tuple[list[npt.NDArray[np.floating[Any]]], dict[str, Any]]:
    """The best weights and the log of `train`; they are kept until `forget_training`, so that no kill costs them."""
    folder = _trained_dir(config)
    kept = kept_trained(folder)
    if kept is None:
        model, log = train(config, normalization, train_examples, eval_examples, logs_dir, base_weights)
        kept = model.get_weights(), log
        keep_trained(folder, *kept)
    for teacher_config in _teacher_configs(config):  # not before: a kill would cost them and their student
        forget_training(teacher_config)
    return kept


def forget_training(config: TrainerConfig) -> None:
    """Removes what `train_once` kept, if nobody has: `cache/` can be deleted at any time."""
    folder = _trained_dir(config)
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)


def _teacher_configs(config: TrainerConfig) -> list[TrainerConfig]:
    return [config.teacher(number) for number in range(1, config.distillation.teachers + 1)]


def _trained_dir(config: TrainerConfig) -> str:
    return os.path.join(config.backup_dir, f"{identity_digest(config.identity())}-trained")


def new_classifier(config: TrainerConfig, precision: str = "float32") -> keras.Model:
    """The recipe's classifier, to logits: by default as it is exported; or the teacher that the config describes."""
    if config.teacher_channels:
        return build_teacher(config.teacher_channels, config.image_shape, len(config.class_names), precision)
    return build_model(config.model, config.image_shape, len(config.class_names), precision)


def training_input(
    config: TrainerConfig, normalization: Normalization, train_examples: DecodedExamples
) -> TrainingInput:
    """Split train, as the recipe has it augmented and divided into batches."""
    return TrainingInput(
        train_examples,
        normalization,
        config.augmentation,
        num_classes=len(config.class_names),
        batch_size=config.training.batch_size,
        seed=config.training.seed,
    )


def compiled_model(
    config: TrainerConfig,
    optimizer: keras.optimizers.Optimizer,
    teachers: Sequence[keras.Model] = (),
    class_weights: Sequence[float] | None = None,
    **options: Any,
) -> tuple[keras.Model, keras.Model]:
    """A new classifier of the recipe: what is to be fitted, and in it the classifier alone, to logits.

    `options` are more of Keras' `compile`. The two are one model where targets are plain and weigh the same.
    """
    classifier = new_classifier(config, hardware_precision(config.training.precision))
    model = classifier
    if config.augmentation.mixup or teachers or class_weights:
        model = SoftTargetsClassifier(
            classifier,
            mixup=config.augmentation.mixup,
            teachers=teachers,
            weight=config.distillation.weight,
            class_weights=class_weights,
        )
    # A teacher's probabilities are smooth by themselves.
    smoothing = 0.0 if teachers else config.training.label_smoothing
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    model.compile(optimizer=optimizer, loss=loss, jit_compile=False, **options)
    return model, classifier


@functools.cache  # a second one in a process takes the first one's collective operations for its own
def _strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine, or its one device."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


class _EpochNumbers(keras.callbacks.Callback):
    """Tells the input which epoch begins; adds `learning_rate` and `input_wait_seconds` to Keras' logs when it ends."""

    def __init__(self, data: TrainingInput) -> None:
        super().__init__()
        self._data = data

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._data.epoch.assign(epoch)
        self._data.waited.assign(0.0)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))
            logs["input_wait_seconds"] = float(self._data.waited)


class _FiniteLoss(keras.callbacks.Callback):
    """Ends a training whose loss is infinite or not a number: no later epoch mends that."""

    def __init__(self, learning_rate: float) -> None:
        super().__init__()
        self._learning_rate = learning_rate

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for name in ("loss", "val_loss"):
            value = (logs or {}).get(name, 0.0)
            if not math.isfinite(value):
                raise PipelineError(
                    f"Training came apart: {name} is {value} after epoch {epoch + 1}. Lower "
                    f"training.learning_rate (now {self._learning_rate:g}) or set training.warmup=0.1; "
                    "`mnist-tfx lr-find` suggests a rate."
                )


def _report_epoch(epochs: int, epoch: int, logs: dict[str, float]) -> None:
    _PROGRESS.info(
        "epoch %d/%d  accuracy %.4f  val_accuracy %.4f", epoch + 1, epochs, logs["accuracy"], logs["val_accuracy"]
    )


def _training_log(
    stopping: ResumableEarlyStopping, settings: TrainingSettings, train_count: int, resumed_at: int, seconds: float
) -> dict[str, Any]:
    """What training was like.

    Keys: `history` (a row per epoch: `epoch` from 1, `loss`, `accuracy`, `val_loss`, `val_accuracy`, `learning_rate` at
    its end, `seconds`, and of these `input_wait_seconds`), `best_epoch` (from 1, whose weights were kept), `stopped`
    (why), `seconds` (of this process, with the teachers'), `examples_per_second` (during the epochs),
    `input_wait_share` (of the epochs' time), `train_examples`, `resumed_after_epoch` (0: not resumed), `devices`;
    `teachers` (a row each: `best_epoch`, `val_accuracy`, `seconds`), `precision` (of training).
    """
    epochs = stopping.epochs
    early = len(epochs) < settings.epochs or stopping.stopped_epoch > 0
    epoch_seconds = sum(row["seconds"] for row in epochs)
    return {
        "history": epochs,
        "best_epoch": stopping.best_epoch + 1,
        "stopped": f"no better {settings.monitor} for {settings.patience} epochs" if early else "all epochs done",
        "seconds": seconds,
        "examples_per_second": train_count * len(epochs) / epoch_seconds,
        "input_wait_share": sum(row["input_wait_seconds"] for row in epochs) / epoch_seconds,
        "train_examples": train_count,
        "resumed_after_epoch": resumed_at,
        "devices": [device.device_type for device in tf.config.list_logical_devices()],
    }
