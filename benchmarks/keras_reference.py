"""A plain Keras script without a pipeline: trains and evaluates the dense classifier on TFDS data.

This is what the Keras and TFDS documentation would have one write (https://www.tensorflow.org/datasets/keras_example),
with the layers, batch size and division of the data of our recipe `mnist/benchmark`: the floor that
`benchmarks.pipeline` compares with.

    .venv/bin/python -m benchmarks.keras_reference --data-dir var/datasets
"""

from __future__ import annotations

import argparse
import json
import time

import keras
import tensorflow as tf
import tensorflow_datasets as tfds


def load(dataset: str, data_dir: str, batch_size: int) -> tuple[tf.data.Dataset, tf.data.Dataset, tf.data.Dataset]:
    """The splits train (shuffled), eval and test, as batches of (float32 [N, 28, 28, 1] in [0, 1], int64 [N])."""
    train, evaluation, test = tfds.load(
        dataset,
        split=["train[:55000]", "train[55000:]", "test"],
        data_dir=data_dir,
        download=False,
        as_supervised=True,
        shuffle_files=True,
    )

    def normalize(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(image, tf.float32) / 255.0, label

    def batches(split: tf.data.Dataset, shuffle: bool) -> tf.data.Dataset:
        split = split.map(normalize, num_parallel_calls=tf.data.AUTOTUNE).cache()
        if shuffle:
            split = split.shuffle(55_000)
        return split.batch(batch_size).prefetch(tf.data.AUTOTUNE)

    return batches(train, shuffle=True), batches(evaluation, shuffle=False), batches(test, shuffle=False)


def build_model() -> keras.Model:
    """Two hidden layers of 512 units, compiled with Adam at its default learning rate."""
    model = keras.Sequential(
        [
            keras.layers.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def main() -> None:
    """Trains, evaluates, and prints a JSON object as the last line: `accuracy` on split test, `fit_seconds`."""
    parser = argparse.ArgumentParser(description="Train and evaluate a dense classifier with plain Keras.")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir", required=True, help="the TFDS data_dir that holds the prepared dataset")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    train, evaluation, test = load(args.dataset, args.data_dir, args.batch_size)
    model = build_model()
    started = time.perf_counter()
    model.fit(train, validation_data=evaluation, epochs=args.epochs, verbose=2)
    fit_seconds = time.perf_counter() - started
    _, accuracy = model.evaluate(test, verbose=0)
    print(json.dumps({"accuracy": accuracy, "fit_seconds": fit_seconds}))


if __name__ == "__main__":
    main()
