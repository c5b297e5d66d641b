"""The Trainer's own training (`components.trainer.training.train`) on arrays, for `benchmarks.race` and `gpu`.

    .venv/bin/python -m benchmarks.our_training --data MNIST.npz

With the recipe `mnist/benchmark`. Split test stands in for eval, so that the log has its accuracy for each epoch, as
the other loops of the benchmark have it; nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import json
import tempfile

import numpy as np

from mnist_tfx.components.trainer.config import TrainerConfig
from mnist_tfx.components.trainer.training import train
from mnist_tfx.components.trainer.training_data import DecodedExamples
from mnist_tfx.components.transform.preprocessing import Normalization
from mnist_tfx.pipeline.recipes import load_recipe


def main() -> None:
    """Prints a JSON object as the last line: `epochs`, a row of seconds and accuracy each."""
    parser = argparse.ArgumentParser(description="Train as the pipeline's Trainer does.")
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--target", type=float, default=0.98)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    arrays = np.load(args.data)
    recipe = load_recipe("mnist", "benchmark")
    shape = recipe.data.image_shape
    settings = recipe.training.model_copy(
        update={
            "batch_size": args.batch_size or recipe.training.batch_size,
            "precision": args.precision,
            "epochs": args.epochs,
            "patience": args.epochs,
            "seed": args.seed,
        }
    )
    train_examples, test_examples = (
        DecodedExamples(arrays[f"y_{split}"].astype(np.int64), shape, arrays[f"x_{split}"].__getitem__)
        for split in ("train", "test")
    )
    normalization = Normalization(np.full(shape, 1 / 255, np.float32), np.zeros(shape, np.float32))
    with tempfile.TemporaryDirectory() as folder:
        config = TrainerConfig(
            dataset="mnist",
            data_fingerprint="",
            class_names=tuple("0123456789"),
            image_shape=shape,
            normalization="unit",
            model=recipe.model,
            training=settings,
            augmentation=recipe.augmentation,
            distillation=recipe.distillation,
            code_version="",
            backup_dir=f"{folder}/backup",
        )
        _, log = train(config, normalization, train_examples, test_examples, f"{folder}/logs")
    # What was before the first epoch and after the last counts as if all of it had been before.
    seconds = log["seconds"] - sum(row["seconds"] for row in log["history"])
    epochs = []
    for row in log["history"]:
        seconds += row["seconds"]
        epochs.append((seconds, row["val_accuracy"]))
        if row["val_accuracy"] >= args.target:
            break
    print(json.dumps({"epochs": epochs, "input_wait_share": log["input_wait_share"]}))


if __name__ == "__main__":
    main()
