"""How time and memory of our pipeline grow with the data: MNIST once, and with its split train repeated N times.

    .venv/bin/python -m benchmarks.scale [--times 1,10,50] [--home DIR]

One epoch of 2 x 512 each. All run as dataset `kmnist`, which has MNIST's form and no published sums to compare with.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from benchmarks import measure, our_pipeline
from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.components.datasets.published import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from mnist_tfx.pipeline.home import Home

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


def table(runs: Mapping[int, our_pipeline.OurRun]) -> str:
    """Seconds, peak MiB and the components' seconds by how often split train was repeated, as Markdown."""
    rows: dict[str, list[float]] = {
        "seconds": [run.measurement.seconds for run in runs.values()],
        "peak MiB": [run.measurement.peak_mib for run in runs.values()],
    }
    first = next(iter(runs.values()))
    rows |= {name: [run.components[name] for run in runs.values()] for name in first.components}
    lines = [
        f"| | {' | '.join(f'x {repeats}' for repeats in runs)} | ratio of the last to the first |",
        f"| --- | {' | '.join(['---:'] * (len(runs) + 1))} |",
    ]
    for title, values in rows.items():
        ratio = f"{values[-1] / values[0]:.2f}" if values[0] else ""
        lines.append(f"| {title} | {' | '.join(f'{value:,.1f}' for value in values)} | {ratio} |")
    return "\n".join(lines)


def main() -> int:
    """Runs each scale and writes the table after each; 0 where all of it ran."""
    parser = argparse.ArgumentParser(description="How time and memory of our pipeline grow with the data.")
    parser.add_argument("--times", default="1,10,50", metavar="N,N", help="how often split train is repeated")
    parser.add_argument("--home", metavar="DIR", help="whose prepared MNIST to use (default: as for mnist-tfx)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"), metavar="FILE")
    args = parser.parse_args()
    datasets = Home.resolve(args.home).datasets
    prepare("mnist", datasets)
    head = (
        "# How our pipeline grows with the data\n\n"
        "`python -m benchmarks.scale` writes this page: MNIST with its 60,000 training images repeated,\n"
        f"KMNIST's recipe `default` for one epoch, once each. {measure.machine()}; "
        f"load average {os.getloadavg()[0]:.1f} before."
    )
    runs: dict[int, our_pipeline.OurRun] = {}
    for times in map(int, args.times.split(",")):
        print(f"split train {times} times ... (load average {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="mnist-tfx-benchmark-") as work:
            runs[times] = run_repeated(datasets, Path(work), times)
        args.output.write_text(f"{head}\n\n{table(runs)}\n")
    print(args.output.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
