"""One-node pipelines that go on for minutes in the ways in which real components do, for the tests of Ctrl-C.

No `from __future__ import annotations` here: TFX reads the annotations of component functions as objects.
"""

import time
from pathlib import Path

import apache_beam as beam
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types.standard_artifacts import Examples, Model

from mnist_tfx.components.beam_arguments import beam_arguments
from mnist_tfx.components.settings import BeamSettings

_MINUTES = 180  # seconds


def _sleep(element: int, flag: str) -> int:
    Path(flag).touch()
    time.sleep(0.1)
    return element


@component(use_beam=True)
def BeamStep(
    examples: OutputArtifact[Examples],
    flag: Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    with beam_pipeline as root:
        (
            root
            | beam.Create(range(_MINUTES * 10))
            | beam.Reshuffle()
            | beam.Map(_sleep, flag)
            | beam.io.WriteToText(examples.uri + "/data")
        )


@component
def KerasStep(model: OutputArtifact[Model], flag: Parameter[str]) -> None:
    import keras
    import numpy as np

    network = keras.Sequential([keras.Input((32,)), keras.layers.Dense(256, "relu"), keras.layers.Dense(10)])
    network.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    touch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: Path(flag).touch())
    inputs, labels = np.zeros((1024, 32), np.float32), np.zeros(1024, np.int64)
    network.fit(inputs, labels, epochs=1_000_000, verbose=2, callbacks=[touch])


@component
def OneLongCall(model: OutputArtifact[Model], flag: Parameter[str]) -> None:
    """A single call of TensorFlow's C++ code, in which Python cannot raise KeyboardInterrupt."""
    import tensorflow as tf

    @tf.function
    def spin(matrix: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(1_000_000_000):
            matrix = tf.tanh(tf.matmul(matrix, matrix))
        return matrix

    Path(flag).touch()
    spin(tf.random.normal((64, 64)))


STEPS = {"beam": BeamStep, "keras": KerasStep, "one-long-call": OneLongCall}


def slow_pipeline(home: Path, run_id: str, *, step: str, flag: str) -> Pipeline:
    """A pipeline of the one node `step`, which touches the file `flag` once it is at work."""
    return Pipeline(
        pipeline_name="mnist",
        pipeline_root=str(home / "runs" / "mnist" / run_id),
        components=[STEPS[step](flag=flag).with_id("Slow")],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(home / "metadata.db")),
        beam_pipeline_args=beam_arguments(BeamSettings()),
    )
