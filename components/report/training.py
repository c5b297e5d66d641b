"""Section "training": what the Trainer wrote down."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mnist_tfx.components.report.content import Epoch, Training

_EPOCH_FIELDS = tuple(field.name for field in dataclasses.fields(Epoch))


def collect_training(model_uri: str, recipe: Mapping[str, Any]) -> Training:
    """Reads `training.json` (see `components.trainer.run_fn`) from the root of the Model artifact."""
    with tf.io.gfile.GFile(os.path.join(model_uri, "training.json")) as file:
        log = json.load(file)
    return Training(
        epochs=tuple(Epoch(**{key: row[key] for key in _EPOCH_FIELDS if key in row}) for row in log["history"]),
        best_epoch=log["best_epoch"],
        stopped=log["stopped"],
        monitor=str(recipe.get("training", {}).get("monitor", "")),
        seconds=log["seconds"],
        examples_per_second=log["examples_per_second"],
        train_examples=log["train_examples"],
        resumed_after_epoch=log["resumed_after_epoch"],
        devices=tuple(log["devices"]),
        settings_found=log.get("settings_found", {}),
        teachers=tuple(teacher["val_accuracy"] for teacher in log.get("teachers", ())),
    )
