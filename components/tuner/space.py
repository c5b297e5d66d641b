"""The recipe's search space as keras-tuner has it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras_tuner

from mnist_tfx.components.tuner.settings import Choice, Range, field_type


def search_space(space: Mapping[str, Range | Choice]) -> keras_tuner.HyperParameters:
    """A hyperparameter for each setting, under its full key (`training.learning_rate`)."""
    hyperparameters = keras_tuner.HyperParameters()
    for key, entry in space.items():
        if isinstance(entry, Choice):
            hyperparameters.Choice(key, _as_choices(entry.values))
        elif field_type(key) is int:
            hyperparameters.Int(key, int(entry.min), int(entry.max), sampling="log" if entry.log else "linear")
        else:
            hyperparameters.Float(key, float(entry.min), float(entry.max), sampling="log" if entry.log else "linear")
    return hyperparameters


def _as_choices(values: tuple[Any, ...]) -> list[Any]:
    """keras-tuner takes numbers of one type, which it knows to be in order, or text: all else is written as JSON."""
    if all(type(value) in (int, float) for value in values):
        numbers = sorted(values)
        return numbers if all(type(value) is int for value in values) else [float(value) for value in numbers]
    return [json.dumps(value) for value in values]
