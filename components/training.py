"""Trains the classifier that a recipe describes: from Examples to the model with the best weights."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from components.dense import build_model
from components.errors import PipelineError
from components.optimization import make_optimizer
from components.preprocessing import Normalization
from components.resume import EpochSeeds, ResumableEarlyStopping, backed_up_epoch
from components.settings import AugmentationSettings, DistillationSettings, ModelSettings, TrainingSettings
from components.soft_targets import SoftTargetsClassifier
from components.training_data import DecodedExamples, TrainingInput, evaluation_batches
from components.tuner.settings import TunerSettings

_PROGRESS = logging.getLogger("mnist_tfx.progress")
_EVALUATION_BATCH = 1000
_STEPS_PER_EXECUTION = 50
_TEACHER_SEEDS = 1000  # a teacher's seed is the recipe's plus this times its number


@dataclass(frozen=True)
class TrainerConfig:
    """What the pipeline hands to the Trainer as `custom_config`; every value takes part in TFX's cache key."""

    dataset: str
    data_fingerprint: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    normalization: str
    model: ModelSettings
    training: TrainingSettings
    augmentation: AugmentationSettings
    distillation: DistillationSettings
    code_version: str
    backup_dir: str
    tuner: TunerSettings | None = None  # where hyperparameters are searched before

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> TrainerConfig:
        """The reverse of `to_json`."""
        return cls(
            **{
                **config,
                "class_names": tuple(config["class_names"]),
                "image_shape": tuple(config["image_shape"]),
                "model": ModelSettings.model_validate(config["model"]),
                "training": TrainingSettings.model_validate(config["training"]),
                "augmentation": AugmentationSettings.model_validate(config["augmentation"]),
                "distillation": DistillationSettings.model_validate(config["distillation"]),
                "tuner": TunerSettings.model_validate(config["tuner"]) if config.get("tuner") else None,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**self.identity(), "class_names": list(self.class_names), "backup_dir": self.backup_dir}

    def identity(self) -> dict[str, Any]:
        """What decides which model comes out: it is the model's metadata, and names its backup."""
        return {
            "dataset": self.dataset,
            "data_fingerprint": self.data_fingerprint,
            "image_shape": list(self.image_shape),
            "normalization": self.normalization,
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "augmentation": self.augmentation.model_dump(mode="json"),
            "distillation": self.distillation.model_dump(mode="json"),
            "tuner": self.tuner.model_dump(mode="json") if self.tuner else None,
            "code_version": self.code_version,
        }

    def teacher(self, number: int) -> TrainerConfig:
        """The training of a teacher: this one with another seed, without distillation."""
        settings = self.training
        seed = settings.seed + _TEACHER_SEEDS * number
        epochs = self.distillation.teacher_epochs or settings.epochs
        return replace(
            self,
            training=settings.model_copy(update={"seed": seed, "epochs": epochs}),
            distillation=DistillationSettings(),
        )


def train(
    config: TrainerConfig,
    normalization: Normalization,
    train_examples: DecodedExamples,
    eval_examples: DecodedExamples,
    logs_dir: str,
) -> tuple[keras.Model, dict[str, Any]]:
    """Trains with early stopping; goes on where a killed training of the same identity left off.

    Returns:
        The model with its best weights, float32 whatever the training's precision, and the training log (see
        `_training_log`).

    Raises:
        PipelineError: the loss is no longer a finite number.
    """
    started = time.monotonic()
    teachers, teacher_logs = [], []
    for number in range(1, config.distillation.teachers + 1):
        _PROGRESS.info("teacher %d of %d", number, config.distillation.teachers)
        teacher, teacher_log = train(
            config.teacher(number),
            normalization,
            train_examples,
            eval_examples,
            os.path.join(logs_dir, f"teacher-{number}"),
        )
        teachers.append(teacher)
        teacher_logs.append({key: teacher_log[key] for key in ("best_epoch", "seconds")} | _best_row(teacher_log))
    settings, num_classes = config.training, len(config.class_names)
    keras.utils.set_random_seed(settings.seed)
    data = TrainingInput(
        train_examples,
        normalization,
        config.augmentation,
        num_classes=num_classes,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    identity = json.dumps(config.identity(), sort_keys=True).encode()
    backup_dir = os.path.join(config.backup_dir, hashlib.sha256(identity).hexdigest()[:16])
    first_epoch = backed_up_epoch(backup_dir, data.steps)
    if first_epoch:
        _PROGRESS.info("going on after epoch %d of an interrupted training", first_epoch)
    strategy = _strategy()
    with strategy.scope():
        classifier = build_model(config.model, config.image_shape, num_classes, settings.precision)
        model = classifier
        if config.augmentation.mixup or teachers:
            model = SoftTargetsClassifier(
                classifier, mixup=config.augmentation.mixup, teachers=teachers, weight=config.distillation.weight
            )
        model.compile(
            optimizer=make_optimizer(settings, data.steps),
            # A teacher's probabilities are smooth by themselves.
            loss=keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=0.0 if teachers else settings.label_smoothing
            ),
            metrics=["accuracy"],
            # Several steps in one graph fail on several devices (keras-team/keras#19246).
            steps_per_execution=1 if strategy.num_replicas_in_sync > 1 else min(_STEPS_PER_EXECUTION, data.steps),
            jit_compile=False,
        )
    stopping = ResumableEarlyStopping(
        backup_dir,
        first_epoch,
        monitor=settings.monitor,
        mode="max" if settings.monitor.endswith("accuracy") else "min",
        patience=settings.patience,
        min_delta=settings.min_delta,
        restore_best_weights=True,
    )
    model.fit(
        data.batches(),
        validation_data=evaluation_batches(
            eval_examples, normalization, num_classes=num_classes, batch_size=_EVALUATION_BATCH
        ),
        epochs=settings.epochs,
        callbacks=[
            _EpochNumbers(data),
            _FiniteLoss(settings.learning_rate),
            stopping,
            keras.callbacks.BackupAndRestore(backup_dir),
            EpochSeeds(settings.seed),
            keras.callbacks.TensorBoard(logs_dir, write_graph=False),
            keras.callbacks.LambdaCallback(on_epoch_end=_progress_reporter(settings.epochs)),
        ],
        shuffle=False,  # TrainingInput does
        verbose=0,
    )
    log = _training_log(stopping, settings, len(train_examples), first_epoch, time.monotonic() - started)
    _PROGRESS.info("training waited %.1f %% of its time for input", 100 * log["input_wait_share"])
    if settings.precision != "float32" or strategy.num_replicas_in_sync > 1:  # a plain model, on one device
        trained, classifier = classifier, build_model(config.model, config.image_shape, num_classes)
        classifier.set_weights(trained.get_weights())
    return classifier, log | {"teachers": teacher_logs}


@functools.cache  # a second one in a process takes the first one's collective operations for its own
def _strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine, or its one device."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return (
        tf.distribute.MirroredStrategy([device.name for device in devices])
        if len(devices) > 1
        else tf.distribute.get_strategy()
    )


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


def _progress_reporter(epochs: int) -> Callable[[int, dict[str, float]], None]:
    def report(epoch: int, logs: dict[str, float]) -> None:
        _PROGRESS.info(
            "epoch %d/%d  accuracy %.4f  val_accuracy %.4f", epoch + 1, epochs, logs["accuracy"], logs["val_accuracy"]
        )

    return report


def _best_row(log: dict[str, Any]) -> dict[str, float]:
    return {"val_accuracy": log["history"][log["best_epoch"] - 1]["val_accuracy"]}


def _training_log(
    stopping: ResumableEarlyStopping, settings: TrainingSettings, train_count: int, resumed_at: int, seconds: float
) -> dict[str, Any]:
    """What training was like.

    Keys: `history` (a row per epoch: `epoch` from 1, `loss`, `accuracy`, `val_loss`, `val_accuracy`, `learning_rate` at
    its end, `seconds`, and of these `input_wait_seconds`), `best_epoch` (from 1, whose weights were kept), `stopped`
    (why), `seconds` (of this process, with the teachers'), `examples_per_second` (during the epochs),
    `input_wait_share` (of the epochs' time), `train_examples`, `resumed_after_epoch` (0: not resumed), `devices`;
    `teachers` (a row each: `best_epoch`, `val_accuracy`, `seconds`).
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
