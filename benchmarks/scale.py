"""How time and memory of our pipeline grow with the data: MNIST once, and with its split train repeated N times.

One epoch of 2 x 512 each. Both run as dataset `kmnist`, which has MNIST's form and no published sums to compare with.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from benchmarks import our_pipeline
from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.components.datasets.published import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS

STAND_IN = "kmnist"


def write_idx_files(datasets: Path, folder: Path, repeats: int) -> int:
    """Writes the prepared dataset `mnist` as IDX files, split train `repeats` times; returns that split's size."""
    folder.mkdir(parents=True)
    count = 0
    for split, images, labels, times in (
        ("test", TEST_IMAGES, TEST_LABELS, 1),
        ("train", TRAIN_IMAGES, TRAIN_LABELS, repeats),
    ):
        records = tfds.load("mnist", split=split, data_dir=datasets, download=False, as_supervised=True, batch_size=-1)
        pixels, classes = tfds.as_numpy(records)
        count = len(classes) * times
        with open(folder / images, "wb") as out:
            out.write(struct.pack(">IIII", 0x0803, count, 28, 28))
            for _ in range(times):
                out.write(pixels.tobytes())
        with open(folder / labels, "wb") as out:
            out.write(struct.pack(">II", 0x0801, count))
            out.write(classes.astype(np.uint8).tobytes() * times)
    return count


def prepare_repeated(datasets: Path, work: Path, repeats: int) -> list[str]:
    """Prepares MNIST with its train split `repeats` times in `work`/datasets; returns the settings of a run on it."""
    examples = write_idx_files(datasets, work / "idx", repeats)
    prepare(STAND_IN, work / "datasets", source=work / "idx")
    edge = examples * 11 // 12  # 55,000 of 60,000
    return [
        f"data.splits.train=train[:{edge}]",
        f"data.splits.eval=train[{edge}:]",
        "training.epochs=1",
        "evaluation.min_accuracy=0.5",
        "evaluation.min_class_accuracy=0.1",
        "evaluation.baseline=none",
    ]


def run_repeated(datasets: Path, work: Path, repeats: int) -> our_pipeline.OurRun:
    """Runs our pipeline on MNIST with its train split `repeats` times; preparing them is not measured."""
    settings = prepare_repeated(datasets, work, repeats)
    return our_pipeline.run(STAND_IN, "default", work / "datasets", work / "home", settings)


def compare(datasets: Path, work: Path, scale: int) -> dict[int, our_pipeline.OurRun]:
    """Runs with the data once and `scale` times; the runs by how often split train was repeated."""
    runs = {}
    for repeats in (1, scale):
        print(f"split train {repeats} times ...", file=sys.stderr, flush=True)
        runs[repeats] = run_repeated(datasets, work / str(repeats), repeats)
    return runs


def show(runs: dict[int, our_pipeline.OurRun]) -> None:
    """Prints both runs and the ratios."""
    once, many = runs.values()
    print(f"{'':22} " + " ".join(f"{f'x {repeats}':>10}" for repeats in runs) + f" {'ratio':>7}")
    rows = {"seconds": (once.measurement.seconds, many.measurement.seconds)}
    rows["peak MiB"] = (once.measurement.peak_mib, many.measurement.peak_mib)
    rows |= {f"  {name}": (seconds, many.components[name]) for name, seconds in once.components.items()}
    for title, (first, second) in rows.items():
        print(f"{title:22} {first:10,.1f} {second:10,.1f} {second / first if first else 0:7.2f}")
