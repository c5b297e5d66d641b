"""The Trainer's `run_fn`: trains the classifier that the recipe describes and exports it."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from components import training_data
from components.dense import build_model
from components.export import ServingModule, export_model
from components.preprocessing import Normalization
from components.resume import EpochSeeds, ResumableEarlyStopping, backed_up_epoch
from components.settings import ModelSettings, TrainingSettings

_PROGRESS = logging.getLogger("mnist_tfx.progress")
TRAINING_LOG = "training.json"  # beside the SavedModel, in the root of the Model artifact
_EVALUATION_BATCH = 1000
_STEPS_PER_EXECUTION = 50


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
    code_version: str
    backup_dir: str

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
            "code_version": self.code_version,
        }


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports; TFX calls it by its import path.

    Writes the SavedModel to `fn_args.serving_model_dir`, what training was like to `training.json` in the Model
    artifact's root, and TensorBoard logs to `fn_args.model_run_dir`.
    """
    config = TrainerConfig.from_json(fn_args.custom_config)
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    normalization = Normalization.of_graph(transform_output, config.image_shape)
    with tempfile.TemporaryDirectory(prefix="decoded-") as cache_dir:
        model, log = train(
            config, normalization, fn_args.train_files, fn_args.eval_files, fn_args.model_run_dir, cache_dir
        )
    module = ServingModule(model, transform_output, normalization, config.class_names, config.image_shape)
    export_model(module, fn_args.serving_model_dir, {**config.identity(), "class_names": list(config.class_names)})
    with tf.io.gfile.GFile(os.path.join(os.path.dirname(fn_args.serving_model_dir), TRAINING_LOG), "w") as file:
        json.dump(log, file, indent=2)


def train(
    config: TrainerConfig,
    normalization: Normalization,
    train_files: list[str],
    eval_files: list[str],
    logs_dir: str,
    cache_dir: str,
) -> tuple[keras.Model, dict[str, Any]]:
    """Trains with early stopping; goes on where a killed training of the same identity left off.

    Decoded examples that do not fit in memory are kept in `cache_dir`, on a local disk.

    Returns:
        The model with its best weights, and the training log (see `_training_log`).
    """
    settings, num_classes = config.training, len(config.class_names)
    started = time.monotonic()
    keras.utils.set_random_seed(settings.seed)
    identity = json.dumps(config.identity(), sort_keys=True).encode()
    backup_dir = os.path.join(config.backup_dir, hashlib.sha256(identity).hexdigest()[:16])
    train_count, eval_count = (training_data.count_examples(files) for files in (train_files, eval_files))
    train_examples = training_data.decoded_examples(train_files, config.image_shape, train_count, cache_dir)
    eval_examples = training_data.decoded_examples(eval_files, config.image_shape, eval_count, cache_dir)
    steps = math.ceil(train_count / settings.batch_size)
    first_epoch = backed_up_epoch(backup_dir, steps)
    if first_epoch:
        _PROGRESS.info("going on after epoch %d of an interrupted training", first_epoch)
    with _strategy().scope():
        model = build_model(config.model, config.image_shape, num_classes)
        model.compile(
            optimizer=_optimizer(settings, steps),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=settings.label_smoothing),
            metrics=["accuracy"],
            steps_per_execution=min(_STEPS_PER_EXECUTION, steps),
            jit_compile=False,
        )
    stopping = ResumableEarlyStopping(
        backup_dir,
        first_epoch,
        monitor=settings.monitor,
        mode="max" if settings.monitor.endswith("accuracy") else "min",
        patience=settings.patience,
        restore_best_weights=True,
    )
    model.fit(
        training_data.training_batches(
            train_examples,
            normalization,
            num_classes=num_classes,
            batch_size=settings.batch_size,
            seed=settings.seed,
            first_epoch=first_epoch,
        ),
        validation_data=training_data.evaluation_batches(
            eval_examples, normalization, num_classes=num_classes, batch_size=_EVALUATION_BATCH
        ),
        epochs=settings.epochs,
        callbacks=[
            stopping,
            keras.callbacks.BackupAndRestore(backup_dir),
            EpochSeeds(settings.seed),
            keras.callbacks.TensorBoard(logs_dir, write_graph=False),
            keras.callbacks.LambdaCallback(on_epoch_end=_progress_reporter(settings.epochs)),
        ],
        verbose=0,
    )
    return model, _training_log(stopping, settings, train_count, first_epoch, time.monotonic() - started)


def _strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine, or its one device."""
    return (
        tf.distribute.MirroredStrategy()
        if len(tf.config.list_physical_devices("GPU")) > 1
        else tf.distribute.get_strategy()
    )


def _optimizer(settings: TrainingSettings, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    rate: float | keras.optimizers.schedules.LearningRateSchedule = settings.learning_rate
    if settings.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps_per_epoch * settings.epochs)
    if settings.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    return {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[settings.optimizer](rate)


def _progress_reporter(epochs: int) -> Callable[[int, dict[str, float]], None]:
    def report(epoch: int, logs: dict[str, float]) -> None:
        _PROGRESS.info(
            "epoch %d/%d  accuracy %.4f  val_accuracy %.4f", epoch + 1, epochs, logs["accuracy"], logs["val_accuracy"]
        )

    return report


def _training_log(
    stopping: ResumableEarlyStopping, settings: TrainingSettings, train_count: int, resumed_at: int, seconds: float
) -> dict[str, Any]:
    """What training was like.

    Keys: `history` (a row per epoch: `epoch` from 1, `loss`, `accuracy`, `val_loss`, `val_accuracy`, `seconds`),
    `best_epoch` (from 1, whose weights were kept), `stopped` (why), `seconds` (of this process), `examples_per_second`
    (during the epochs), `train_examples`, `resumed_after_epoch` (0: not resumed), `devices`.
    """
    epochs = stopping.epochs
    early = len(epochs) < settings.epochs or stopping.stopped_epoch > 0
    return {
        "history": epochs,
        "best_epoch": stopping.best_epoch + 1,
        "stopped": f"no better {settings.monitor} for {settings.patience} epochs" if early else "all epochs done",
        "seconds": seconds,
        "examples_per_second": train_count * len(epochs) / sum(row["seconds"] for row in epochs),
        "train_examples": train_count,
        "resumed_after_epoch": resumed_at,
        "devices": [device.device_type for device in tf.config.list_logical_devices()],
    }
