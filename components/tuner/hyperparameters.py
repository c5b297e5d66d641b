"""What a search found, as the recipe's settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mnist_tfx.components.settings import OF_OPTIMIZERS
from mnist_tfx.components.trainer.config import TrainerConfig
from mnist_tfx.components.tuner.settings import needed_optimizers

_KERAS_TUNERS_OWN = "tuner/"  # how the names begin of what Hyperband notes: epochs, bracket, round
EPOCHS = f"{_KERAS_TUNERS_OWN}epochs"


def settings_found(values: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's values by the settings' full keys, without those that the tuner keeps for itself.

    Text is JSON, as `components.tuner.space` writes what is no number. A search over optimizers brings the settings of
    all of them: those of others than the trial's had no effect, and are left out.
    """
    found = {
        key: json.loads(value) if isinstance(value, str) else value
        for key, value in values.items()
        if not key.startswith(_KERAS_TUNERS_OWN)
    }
    if not (optimizer := found.get("training.optimizer")):
        return found
    return {key: value for key, value in found.items() if optimizer in (needed_optimizers(key) or [optimizer])}


def with_settings(config: TrainerConfig, settings: Mapping[str, Any]) -> TrainerConfig:
    """The same training with other settings, given by their full keys; they are validated as a recipe's are.

    Where an optimizer was found, the recipe's settings of others are left out.
    """
    plain = config.to_json()
    for key, value in settings.items():
        section, _, name = key.partition(".")
        plain[section] = {**plain[section], name: value}
    training = plain["training"]
    for name, (optimizers, _) in OF_OPTIMIZERS.items():
        if training["optimizer"] not in optimizers:
            training[name] = None
    return TrainerConfig.from_json(plain)
