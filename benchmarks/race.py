"""Seconds of training to a test accuracy: our Trainer, a plain Keras `fit`, a plain PyTorch loop, side by side.

    .venv/bin/python -m benchmarks.race [--datasets mnist,fashion_mnist] [--rounds 5]

All train 784-512-512-10 with Adam at 1e-3 on the 60,000 training images, from arrays in memory, and look at the test
accuracy after each epoch (in all of them the time for that counts); each in a process of its own, in turn, round by
round with another seed, Keras and PyTorch for a minute and the epoch then begun. Imports and reading the arrays' file
do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import measure
from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.pipeline.home import CHECKOUT, Home

TARGETS = {"mnist": 0.98, "fashion_mnist": 0.88}
_TORCH = ("torch==2.13.0+cpu", "numpy")  # the build for CPUs: the registry's own brings gigabytes of CUDA
# Its threads otherwise spin while they wait for each other: with any other process on the cores, 20 times as slow.
_TORCH_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
BATCH_SIZE = 256  # of the recipe mnist/benchmark
_OURS = f"ours, batch {BATCH_SIZE}"


def load_arrays(dataset: str, datasets: Path) -> dict[str, npt.NDArray[Any]]:
    """`x_train`, `x_test` (uint8 [N, 28, 28, 1]) and `y_train`, `y_test` (int64 [N]) of a prepared dataset."""
    import tensorflow_datasets as tfds

    arrays = {}
    for split in ("train", "test"):
        loaded = tfds.as_numpy(
            tfds.load(dataset, split=split, data_dir=datasets, download=False, batch_size=-1, as_supervised=True)
        )
        arrays[f"x_{split}"], arrays[f"y_{split}"] = loaded
    return arrays


def torch_python(option: str | None) -> str | None:
    """The interpreter of an environment with PyTorch, made if need be; None where it cannot be."""
    if option is not None:
        return option
    make = ["bash", str(CHECKOUT / "scripts" / "isolated.sh"), "torch", *_TORCH]
    made = subprocess.run(make, stdout=subprocess.PIPE, text=True, check=False)
    if made.returncode != 0:
        print(
            "PyTorch is left out: pip found no build for CPUs (its message is above). --torch-python takes the "
            "interpreter of an environment that has one.",
            file=sys.stderr,
        )
        return None
    return made.stdout.strip()


def race(arrays_file: Path, target: float, rounds: int, torch: str | None, work: Path) -> dict[str, list[Any]]:
    """Each contestant's epochs (seconds since the beginning, accuracy), round by round."""
    ours = [sys.executable, "-m", "benchmarks.our_training"]
    keras = [sys.executable, "-m", "benchmarks.keras_fit_reference"]
    contestants = {_OURS: [*ours, "--batch-size", str(BATCH_SIZE)]}
    contestants["ours, in bfloat16"] = [*contestants[_OURS], "--precision", "mixed_bfloat16"]
    contestants["Keras fit, its default (32)"] = keras
    contestants[f"Keras fit, batch {BATCH_SIZE}"] = [*keras, "--batch-size", str(BATCH_SIZE)]
    if torch:
        script = [torch, str(CHECKOUT / "benchmarks" / "torch_reference.py")]
        contestants["PyTorch, its tutorial's (64)"] = script
        contestants[f"PyTorch, batch {BATCH_SIZE}"] = [*script, "--batch-size", str(BATCH_SIZE)]
    results: dict[str, list[Any]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, command in contestants.items():
            print(
                f"round {number + 1}: {name} ... (load average {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True
            )
            options = ["--data", str(arrays_file), "--target", str(target), "--seed", str(number)]
            environment = {**os.environ, **(_TORCH_ENVIRONMENT if command[0] == torch else {})}
            log = work / "training.log"
            stdout = measure.stdout_of([*command, *options], log=log, env=environment, cwd=CHECKOUT)
            epochs = json.loads(stdout.splitlines()[-1])["epochs"]
            results[name].append(epochs)
            print(f"  {len(epochs)} epochs, {epochs[-1][0]:.1f} s, test accuracy {epochs[-1][1]:.4f}", file=sys.stderr)
    return results


def table(results: dict[str, list[Any]], target: float) -> str:
    """The medians over the rounds as Markdown, with ratios to ours."""
    lines = [
        "| | seconds | of ours | epochs | s per epoch | accuracy | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    ours = statistics.median(epochs[-1][0] for epochs in results[_OURS])
    for name, rounds in results.items():
        seconds = statistics.median(epochs[-1][0] for epochs in rounds)
        per_epoch = statistics.median(epochs[-1][0] / len(epochs) for epochs in rounds)
        accuracy = statistics.median(epochs[-1][1] for epochs in rounds)
        missed = sum(epochs[-1][1] < target for epochs in rounds)
        note = f"not reached in {missed} of {len(rounds)}" if missed else ""
        count = statistics.median(len(epochs) for epochs in rounds)
        cells = (f"{seconds:.1f}", f"{seconds / ours:.2f}", f"{count:g}", f"{per_epoch:.2f}", f"{accuracy:.4f}", note)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Runs the races and writes the page after each; 0 where all of it ran."""
    parser = argparse.ArgumentParser(description="Compare training to an accuracy with plain Keras and PyTorch.")
    parser.add_argument("--datasets", default=",".join(TARGETS), metavar=",".join(TARGETS), help="default: both")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5, each with another seed")
    parser.add_argument("--torch-python", metavar="FILE", help="the interpreter of an environment with PyTorch")
    parser.add_argument("--home", metavar="DIR", help="whose prepared datasets to use (default: as for mnist-tfx)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"), metavar="FILE")
    args = parser.parse_args()
    datasets = Home.resolve(args.home).datasets
    torch = torch_python(args.torch_python)
    page = (
        "# Seconds of training to an accuracy\n\n"
        "`python -m benchmarks.race` writes this page; what runs is said there. Medians of "
        f"{args.rounds} rounds,\n{measure.machine()}; load average {os.getloadavg()[0]:.1f} before.\n"
    )
    for dataset in args.datasets.split(","):
        prepare(dataset, datasets)
        target = TARGETS[dataset]
        with tempfile.TemporaryDirectory(prefix="mnist-tfx-benchmark-") as work:
            arrays = Path(work) / "arrays.npz"
            np.savez(arrays, allow_pickle=False, **load_arrays(dataset, datasets))
            try:
                results = race(arrays, target, args.rounds, torch, Path(work))
            except measure.BenchmarkFailed as error:
                print(error, file=sys.stderr)
                return 1
        page += f"\n## {target:.0%} on {dataset}\n\n{table(results, target)}\n"
        args.output.write_text(page)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
