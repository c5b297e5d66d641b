"""The weights of a served model, for a training on new data to begin with.

They are those of the trained net itself: its moving averages where it kept any, batch normalization's statistics, and
no calibration, which the exported graph has as constants of its own. A training fits that anew.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.trainer.config import TrainerConfig
from mnist_tfx.components.trainer.export import read_weights

_PROGRESS = logging.getLogger("mnist_tfx.progress")
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class WarmStart:
    """What a training begins with, or why it begins anew."""

    weights: Sequence[Floats] = ()  # as `keras.Model.get_weights` orders them; none: it begins anew
    told: str = ""

    def digest(self) -> str:
        """Names the weights by their content; empty where there are none."""
        digest = hashlib.sha256()
        for weight in self.weights:
            digest.update(repr(weight.shape).encode() + weight.tobytes())
        return digest.hexdigest() if self.weights else ""


def read_warm_start(base_model: str | None, config: TrainerConfig) -> WarmStart:
    """The weights of the SavedModel in `base_model`, if it is of the architecture that is to be trained; says which.

    A model with other layers, classes, image size or normalization does not fit, and training begins anew: the
    Evaluator compares it with the served model all the same.
    """
    if not config.training.warm_start:
        return WarmStart()
    found = _read(base_model, config)
    _PROGRESS.info("warm start: %s", found.told)
    return found


def _read(base_model: str | None, config: TrainerConfig) -> WarmStart:
    if not base_model or not tf.saved_model.contains_saved_model(base_model):
        return WarmStart(told="nothing is served that was trained on other data; beginning anew")
    said, wanted = read_metadata(base_model), {**config.identity(), "class_names": list(config.class_names)}
    differing = [key for key in ("class_names", "image_shape", "normalization") if said.get(key) != wanted[key]]
    differing += [
        f"model.{key}"
        for key in ("hidden_layers", "activation", "batch_normalization", "output")
        if said.get("model", {}).get(key) != wanted["model"][key]
    ]
    weights = [] if differing else read_weights(tf.saved_model.load(base_model))
    if not weights:
        why = f"{', '.join(differing)} differ" if differing else "it was not exported here"
        return WarmStart(told=f"the served model does not fit ({why}); beginning anew")
    return WarmStart([weight.numpy() for weight in weights], "beginning with the served model's weights")
