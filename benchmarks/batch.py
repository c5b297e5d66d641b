"""Batch prediction beside the bare engine: images a second, and memory by the number of images. One process, in turns.

    .venv/bin/python -m benchmarks.batch [--rounds 3] [--home DIR] [--output FILE]

The bare engine is the exported model called in TensorFlow, signature `encoded_images`, 512 images a call, with all
images in memory: nothing is read, no key is kept, nothing is written. Batch prediction is timed as a whole: listing,
Beam's start, loading the model, reading TFDS, Parquet files. The images are MNIST's split train, the model is the
newest that was pushed for mnist. A ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import tensorflow as tf

from benchmarks.serving_servers import newest_model
from mnist_tfx.components.batch_prediction.inputs import find_inputs, read
from mnist_tfx.components.batch_prediction.predict import BatchModel, predict_batch
from mnist_tfx.components.beam_arguments import direct_arguments
from mnist_tfx.contract.names import ENCODED_IMAGES
from mnist_tfx.pipeline.home import Home

_BATCH = 512
_PART = 4096


def bare(folder: Path, images: list[bytes]) -> float:
    """Seconds of the model's calls."""
    model = tf.saved_model.load(str(folder))
    classify = model.signatures[ENCODED_IMAGES]
    classify(encoded_images=tf.constant(images[:_BATCH]))
    started = time.perf_counter()
    for first in range(0, len(images), _BATCH):
        classify(encoded_images=tf.constant(images[first : first + _BATCH]))["probabilities"].numpy()
    return time.perf_counter() - started


def batch(folder: Path, source: str, data_dir: Path) -> float:
    """Seconds of batch prediction in this process."""
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        inputs = find_inputs(source, str(data_dir), _PART)
        model = BatchModel("mnist", int(folder.name), str(folder))
        predict_batch(source, inputs, model, out, _PART, direct_arguments(1))
        return time.perf_counter() - started


def peak_mib() -> float:
    """The most memory that this process has had (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> int:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description="Compare batch prediction with the bare engine.")
    parser.add_argument("--home", metavar="DIR", help="with data and a model of mnist (default: as for mnist-tfx)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"), metavar="FILE")
    args = parser.parse_args()
    home = Home.resolve(args.home)
    folder = newest_model(home)
    sizes = {"tfds:mnist:train[:10000]": 10_000, "tfds:mnist:train": 60_000}
    small, whole = sizes
    batch(folder, small, home.datasets)
    first = peak_mib()
    batch(folder, whole, home.datasets)
    peak = peak_mib()
    units = find_inputs(whole, str(home.datasets), _PART).units
    images = [content for unit in units for chunk in read(unit, "/nowhere", _PART) for content in chunk.contents]
    rates, ratios, bares, loads = list[float](), list[float](), list[float](), list[float]()
    for number in range(args.rounds):
        loads.append(os.getloadavg()[0])
        print(f"round {number + 1} ... (load average {loads[-1]:.1f})", file=sys.stderr)
        alone = bare(folder, images)
        seconds = batch(folder, whole, home.datasets)
        bares.append(len(images) / alone)
        rates.append(len(images) / seconds)
        ratios.append(alone / seconds)
    lines = [
        f"# Batch prediction beside the bare engine, {os.cpu_count()} processors",
        "",
        f"`python -m benchmarks.batch` writes this table: medians of {args.rounds} rounds, MNIST's {len(images):,}",
        "training images as PNG. The engine has them in memory and keeps nothing; batch prediction starts Beam, loads",
        f"the model, reads TFDS and writes Parquet. The load average was {max(loads):.0f} at most.",
        "",
        "| | images/s | ratio |",
        "| --- | ---: | ---: |",
        f"| the exported model, {_BATCH} images a call | {statistics.median(bares):,.0f} | 1 |",
        f"| `predict --batch` | {statistics.median(rates):,.0f} | {statistics.median(ratios):.2f} |",
        "",
        f"Peak memory of the process, with {sizes[small]:,} images: {first:,.0f} MiB; with {sizes[whole]:,}: "
        f"{peak:,.0f} MiB.",
    ]
    args.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
