"""TFX's own MNIST example, unchanged, from the installed wheel (`tfx.examples.mnist.mnist_pipeline_native_keras`).

It reads `$HOME/mnist/data/*.tfrecord.gz`, records of 784 floats, and expects its two modules of user code beside the
data. `prepare` makes such a folder from the TFDS dataset, outside the measured time.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import ml_metadata as mlmd

from benchmarks import measure

EXAMPLE = "tfx.examples.mnist.mnist_pipeline_native_keras"
_USER_CODE = ("mnist_utils_native_keras.py", "mnist_utils_native_keras_base.py")


def prepare(data_dir: Path, home: Path) -> None:
    """Writes all 70,000 images of the TFDS dataset `mnist` in `data_dir` the way the example wants them below `home`.

    Images become 784 float32 values in [-0.5, 0.5] (`image_floats`), labels an int64 (`image_class`).
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    data = home / "mnist" / "data"
    data.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(data / "mnist.tfrecord.gz"), tf.io.TFRecordOptions(compression_type="GZIP")) as out:
        for record in tfds.load("mnist", split="train+test", data_dir=data_dir, download=False).as_numpy_iterator():
            floats = record["image"].reshape(-1) / 255.0 - 0.5
            feature = {
                "image_floats": tf.train.Feature(float_list=tf.train.FloatList(value=floats)),
                "image_class": tf.train.Feature(int64_list=tf.train.Int64List(value=[record["label"]])),
            }
            out.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())

    package = importlib.util.find_spec("tfx.examples.mnist")
    assert package is not None and package.submodule_search_locations is not None
    for name in _USER_CODE:
        shutil.copy(Path(package.submodule_search_locations[0]) / name, home / "mnist" / name)


def run(home: Path) -> measure.Measurement:
    """Runs the example in a folder made by `prepare`."""
    # Its components call pip in child processes, found on the PATH or through the interpreter.
    env = os.environ | {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return measure.run([sys.executable, "-m", EXAMPLE], log=home / "example.log", env=env, cwd=home)


def component_seconds(home: Path) -> dict[str, float]:
    """How long each component of the finished run took, in order, from its execution's times in ML Metadata."""
    config = mlmd.proto.ConnectionConfig()
    config.sqlite.filename_uri = str(home / "tfx" / "metadata" / "mnist_native_keras" / "metadata.db")
    store = mlmd.MetadataStore(config)
    names = {kind.id: kind.name.rpartition(".")[2] for kind in store.get_execution_types()}
    executions = sorted(store.get_executions(), key=lambda one: one.create_time_since_epoch)
    return {
        names[one.type_id]: (one.last_update_time_since_epoch - one.create_time_since_epoch) / 1000
        for one in executions
    }
