"""The Trainer's `run_fn`: trains the classifier that the recipe describes and exports it."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from mnist_tfx.components.range_test.curve import suggest
from mnist_tfx.components.range_test.run import measure_curve
from mnist_tfx.components.trainer.calibration import expected_calibration_error, fit_calibration
from mnist_tfx.components.trainer.export import LEAST_PROBABILITY, ServingModule, export_model
from mnist_tfx.components.trainer.fn_args import trainer_config
from mnist_tfx.components.trainer.training import EVALUATION_BATCH, forget_training, new_classifier, train_once
from mnist_tfx.components.trainer.training_data import DecodedExamples, decode_examples, evaluation_batches
from mnist_tfx.components.trainer.warm_start import read_warm_start
from mnist_tfx.components.transform.preprocessing import Normalization
from mnist_tfx.components.tuner.hyperparameters import settings_found, with_settings

TRAINING_LOG = "training.json"  # beside the SavedModel, in the root of the Model artifact


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports; TFX calls it by its import path.

    Settings that the Tuner or the range test found take the place of the recipe's, in the model's metadata too.

    Writes the SavedModel to `fn_args.serving_model_dir`, what training was like and the model's layers to
    `training.json` in the Model artifact's root, and TensorBoard logs to `fn_args.model_run_dir`.
    """
    config = trainer_config(fn_args)
    found = settings_found(fn_args.hyperparameters["values"]) if fn_args.hyperparameters else {}
    config = with_settings(config, found)
    base = read_warm_start(fn_args.base_model, config)
    config = replace(config, base_weights=base.digest())
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    normalization = Normalization.of_graph(transform_output, config.image_shape)
    with tempfile.TemporaryDirectory(prefix="decoded-") as cache_dir:
        train_examples, eval_examples = (
            decode_examples(files, config.image_shape, cache_dir) for files in (fn_args.train_files, fn_args.eval_files)
        )
        if config.training.lr_find:
            suggestion = suggest(measure_curve(config, normalization, train_examples))
            found["training.learning_rate"] = suggestion.learning_rate
            config = with_settings(config, found)
        weights, log = train_once(
            config, normalization, train_examples, eval_examples, fn_args.model_run_dir, base.weights
        )
    model = new_classifier(config)
    model.set_weights(weights)
    module = ServingModule(
        model,
        transform_output,
        normalization,
        config.class_names,
        config.image_shape,
        mirrored_averaging=config.model.mirrored_averaging,
    )
    calibration = _calibrate(module, eval_examples, normalization) if config.training.calibrate else None
    export_model(module, fn_args.serving_model_dir, config.identity() | asdict(module.calibration))
    log |= {"settings_found": found, "layers": layer_table(model), "calibration": calibration, "warm_start": base.told}
    with tf.io.gfile.GFile(os.path.join(os.path.dirname(fn_args.serving_model_dir), TRAINING_LOG), "w") as file:
        json.dump(log, file, indent=2)
    forget_training(config)


def _calibrate(module: ServingModule, examples: DecodedExamples, normalization: Normalization) -> dict[str, float]:
    """Fits the module's calibration on split eval; what it is, and the expected calibration error there."""
    batches = evaluation_batches(
        examples, normalization, num_classes=len(module.class_names), batch_size=EVALUATION_BATCH
    )
    before = np.concatenate([module.probabilities(pixels).numpy() for pixels, _ in batches]).astype(np.float64)
    logarithms = np.log(np.maximum(before, LEAST_PROBABILITY))
    module.calibration = fit_calibration(logarithms, examples.labels)
    after = np.exp(module.calibration(logarithms))
    return asdict(module.calibration) | {
        "error_before": expected_calibration_error(before, examples.labels),
        "error_after": expected_calibration_error(after, examples.labels),
    }


def layer_table(model: keras.Model) -> list[dict[str, Any]]:
    """The rows of `model.summary()`: `name`, `type`, `output_shape` (None is the number of images), `parameters`."""
    return [
        {
            "name": layer.name,
            "type": type(layer).__name__,
            "output_shape": list(layer.output.shape),
            "parameters": layer.count_params(),
        }
        for layer in model.layers
    ]
