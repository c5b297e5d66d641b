"""Sections "model", "training" and "serving": what is known of the model, from the Trainer to where it was pushed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from pydantic import TypeAdapter
from tensorflow_serving.apis import prediction_log_pb2
from tfx.utils import path_utils

from mnist_tfx.components.infra_validator.report import read_report
from mnist_tfx.components.report.content import Layer, Model, Serving, Signature, Tensor, Training
from mnist_tfx.components.report.run import Run
from mnist_tfx.components.trainer.export import read_weights


def read_training_log(model_uri: str) -> dict[str, Any]:
    """`training.json` (see `components.trainer.run_fn`) in the root of the Model artifact."""
    with tf.io.gfile.GFile(os.path.join(model_uri, "training.json")) as file:
        return dict(json.load(file))


def collect_training(log: Mapping[str, Any], recipe: Mapping[str, Any]) -> Training:
    """What the training log says."""
    fields = {
        "epochs": log["history"],
        "monitor": recipe.get("training", {}).get("monitor", ""),
        "teachers": [teacher["val_accuracy"] for teacher in log.get("teachers", ())],
    }
    return TypeAdapter(Training).validate_python({**log, **fields})


def collect_model(log: Mapping[str, Any], model: Any) -> Model:
    """The layers that the Trainer wrote into its log, and the weights of the loaded SavedModel."""
    return Model(
        layers=TypeAdapter(tuple[Layer, ...]).validate_python(log.get("layers", ())),
        weights={"/".join(each.name.partition(":")[0].split("/")[-2:]): each.numpy() for each in read_weights(model)},
    )


def collect_serving(model: Any, model_dir: str, run: Run) -> Serving:
    """What is known of how the model serves.

    Args:
        model: the loaded SavedModel.
        model_dir: where it lies.
        run: the run, which may not have got to the infra validator.
    """
    blessing = run.artifact("InfraValidator", "blessing")
    return Serving(
        signatures=tuple(_signature(name, model.signatures[name]) for name in sorted(model.signatures)),
        parameters=sum(math.prod(weight.shape) for weight in read_weights(model)),
        model_bytes=_size(model_dir),
        warm_up=_warm_up(path_utils.stamped_model_path(blessing.uri)) if blessing else (),
        blessed=bool(blessing.properties.get("blessed")) if blessing else None,
        checks=run.checks,
        latencies_ms=tuple(read_report(blessing.uri)["latency_ms"]) if blessing else (),
        pushed_to=str(run.push["pushed_destination"]) if run.push.get("pushed") else None,
    )


def _signature(name: str, function: Any) -> Signature:
    _, inputs = function.structured_input_signature
    return Signature(name, _tensors(inputs), _tensors(function.structured_outputs))


def _tensors(specs: dict[str, tf.TensorSpec]) -> tuple[Tensor, ...]:
    return tuple(Tensor(name, spec.dtype.name, tuple(spec.shape)) for name, spec in sorted(specs.items()))


def _size(folder: str) -> int:
    return sum(
        tf.io.gfile.stat(os.path.join(parent, name)).length
        for parent, _, names in tf.io.gfile.walk(folder)
        for name in names
    )


def _warm_up(model_dir: str) -> tuple[tuple[str, int], ...]:
    path = path_utils.warmup_file_path(model_dir)
    if not tf.io.gfile.exists(path):
        return ()
    records = []
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        [value] = request.inputs.values()
        records.append((request.model_spec.signature_name, int(value.tensor_shape.dim[0].size)))
    return tuple(records)
