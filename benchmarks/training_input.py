"""An epoch of the benchmark recipe's training with tf.data's autotuning and without.

.venv/bin/python -m benchmarks.training_input [--home DIR] [--epochs N]

The same model and data, one after the other in this process; the first epoch of each, which traces, is left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time

import keras
import tensorflow as tf
import tensorflow_transform as tft

from components import training_data
from components.dense import build_model
from components.preprocessing import Normalization
from pipeline.home import Home
from pipeline.recipes import load_recipe

_CLASSES = 10


class _EpochSeconds(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self._started)


def main() -> int:
    """Prints the mean and the longest epoch of both."""
    parser = argparse.ArgumentParser(description="Compare training with and without tf.data's autotuning.")
    parser.add_argument("--home", metavar="DIR", help="a home in which the pipeline has run on mnist")
    parser.add_argument("--epochs", type=int, default=7)
    args = parser.parse_args()
    runs = Home.resolve(args.home).runs("mnist")
    splits = sorted(runs.glob("*/TfdsExampleGen/examples/*/Split-train"))
    graphs = sorted(runs.glob("*/Transform/transform_graph/*"))
    if not splits or not graphs:
        sys.exit(f"no run in {runs}: run `mnist-tfx run --dataset mnist` first.")
    recipe = load_recipe("mnist", "benchmark")
    files = [f"{splits[-1]}/*"]
    examples = training_data.decode_examples(files, recipe.data.image_shape, tempfile.gettempdir())
    normalization = Normalization.of_graph(tft.TFTransformOutput(str(graphs[-1])), recipe.data.image_shape)
    for autotune in (False, True):
        data = training_data.TrainingInput(
            examples,
            normalization,
            recipe.augmentation,
            num_classes=_CLASSES,
            batch_size=recipe.training.batch_size,
            seed=0,
        ).batches()
        options = tf.data.Options()
        options.autotune.enabled = autotune
        keras.utils.set_random_seed(0)
        model = build_model(recipe.model, recipe.data.image_shape, _CLASSES)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(), loss, steps_per_execution=50, jit_compile=False)
        clock = _EpochSeconds()
        model.fit(data.with_options(options), epochs=args.epochs, verbose=0, callbacks=[clock])
        seconds = clock.seconds[1:]
        name = "autotuning" if autotune else "fixed threads (ours)"
        print(f"{name:22} mean {statistics.mean(seconds):5.2f} s per epoch, longest {max(seconds):5.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
