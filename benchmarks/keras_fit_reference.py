"""A plain Keras `fit` on NumPy arrays, as https://keras.io/examples/vision/mnist_convnet writes it.

    .venv/bin/python -m benchmarks.keras_fit_reference --data MNIST.npz [--batch-size N]

The layers and the optimizer are those of our recipe `mnist/benchmark`; the rest is Keras' default.
"""

from __future__ import annotations

import argparse
import json
import time

import keras
import numpy as np


class UntilGoodEnough(keras.callbacks.Callback):
    """Notes when each epoch and its evaluation were over, and stops at an accuracy, or at a time."""

    def __init__(self, target: float, limit: float) -> None:
        super().__init__()
        self.epochs: list[tuple[float, float]] = []  # seconds since the beginning, accuracy
        self._target, self._limit, self._started = target, limit, time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        accuracy = float((logs or {})["val_accuracy"])
        seconds = time.perf_counter() - self._started
        self.epochs.append((seconds, accuracy))
        self.model.stop_training = accuracy >= self._target or seconds >= self._limit


def main() -> None:
    """Prints a JSON object as the last line: `epochs`, a row of seconds and accuracy each."""
    parser = argparse.ArgumentParser(description="Train a dense classifier with plain Keras.")
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--target", type=float, default=0.98)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which no further epoch begins")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    arrays = np.load(args.data)
    keras.utils.set_random_seed(args.seed)
    clock = UntilGoodEnough(args.target, args.limit)
    x_train, x_test = (arrays[name].astype("float32") / 255 for name in ("x_train", "x_test"))
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        x_train,
        arrays["y_train"],
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=(x_test, arrays["y_test"]),
        callbacks=[clock],
        verbose=0,
    )
    print(json.dumps({"epochs": clock.epochs}))


if __name__ == "__main__":
    main()
