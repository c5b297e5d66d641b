"""Our executors on a file system that is no disk: TensorFlow's `ram://`, which only its file layer can read.

It stands for a bucket. What would go by `open` or `pathlib` fails here, or leaves a folder `ram:` behind.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import keras
import pytest
import tensorflow as tf
from tfx.components.trainer.executor import GenericExecutor
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model, ModelRun, TransformGraph

from mnist_tfx.components.infra_validator.executor import Executor as InfraValidator
from mnist_tfx.components.infra_validator.report import failed_checks
from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.settings import InfraSettings
from mnist_tfx.components.trainer.run_fn import TRAINING_LOG
from mnist_tfx.contract.names import SPLITS
from mnist_tfx.kubeflow.ir import read_compiled
from tests.fixtures.compiled import GOLDEN, GOLDEN_FILES
from tests.fixtures.tiny_run import TinyRun

BUCKET = "ram://bucket"
_Kind = TypeVar("_Kind", bound=Artifact)


def _parameters(task: str) -> dict[str, Any]:
    """What a compiled file gives a task, with the bucket in the place of its root."""
    given = read_compiled(GOLDEN / GOLDEN_FILES["vertex-gpu"]).tasks()[task].inputs.parameters
    constants = {key: parameter.runtime_value.constant for key, parameter in given.items()}
    return {
        key: value.string_value.replace("gs://my-bucket/mnist-tfx", BUCKET)
        if value.WhichOneof("kind") == "string_value"
        else int(value.number_value)
        for key, value in constants.items()
    }


def _artifact(kind: type[_Kind], place: str, source: Path | None = None) -> _Kind:
    """An artifact in the bucket, with a copy of what lies in `source`."""
    made = kind()
    made.uri = f"{BUCKET}/{place}"
    tf.io.gfile.makedirs(made.uri)
    if source is not None:
        _copy(str(source), made.uri)
    return made


def _copy(source: str, target: str) -> None:
    for folder, _, files in list(tf.io.gfile.walk(source)):
        # To the `ram` file system, `assets.extra` is also a file `.extra` in the folder `assets`, which is empty.
        for name in files if os.path.basename(folder) != "assets" else ():
            copied = folder.replace(source, target)
            tf.io.gfile.makedirs(copied)
            tf.io.gfile.copy(f"{folder}/{name}", f"{copied}/{name}")


def test_the_trainer_and_the_infra_validator_need_no_disk_of_their_own(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backups = []
    monkeypatch.setattr(keras.callbacks.BackupAndRestore, "on_train_end", lambda self, logs=None: backups.append(self))
    context = BaseExecutor.Context(tmp_dir=f"{BUCKET}/tmp", unique_id="1")
    examples = _artifact(Examples, "examples", tiny_run.examples)
    examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    graph = _artifact(TransformGraph, "graph", tiny_run.transform_graph)
    model, logs = _artifact(Model, "model"), _artifact(ModelRun, "model_run")
    inputs = {"examples": [examples], "transform_graph": [graph]}
    GenericExecutor(context).Do(inputs, {"model": [model], "model_run": [logs]}, _parameters("Trainer"))

    with tf.io.gfile.GFile(f"{model.uri}/{TRAINING_LOG}") as file:
        assert len(json.load(file)["history"]) == 2
    assert read_metadata(f"{model.uri}/Format-Serving")["dataset"] == "kmnist"
    assert tf.io.gfile.glob(f"{logs.uri}/train/events*")
    [backup] = tf.io.gfile.glob(f"{logs.uri}/backup/*/training_metadata.json")  # kept: see above
    assert backups and backup.startswith(BUCKET)

    served = _artifact(Model, "served")
    _copy(f"{model.uri}/Format-Serving", f"{served.uri}/Format-Serving")
    blessing = _artifact(InfraBlessing, "blessing")
    settings = InfraSettings(engine="python", max_latency_ms=10_000.0)
    InfraValidator(context).Do(
        {"model": [served], "examples": [examples]},
        {"blessing": [blessing]},
        {"settings": settings.model_dump_json(), "model_name": "kmnist"},
    )
    assert failed_checks(blessing.uri) == ()
    assert list(tmp_path.iterdir()) == []
