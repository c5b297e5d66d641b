"""Seconds of training to a test accuracy: our Trainer, a plain Keras `fit`, a plain PyTorch loop, side by side.

    .venv/bin/python -m benchmarks.training [--dataset fashion_mnist] [--only race,switches,input] [--rounds N]

All train 784-512-512-10 with Adam at 1e-3 on the 60,000 training images, from arrays in memory, and look at the test
accuracy after each epoch (in all of them the time for that counts); each in a process of its own, in turn, round by
round, Keras and PyTorch for a minute and the epoch then begun. Imports and reading the arrays' file do not count.
Then: seconds per epoch with each switch of our loop, and how long training waits for each augmentation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import measure
from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.pipeline.home import CHECKOUT, Home

_PARTS = ("race", "switches", "input")
_TARGETS = {"mnist": 0.98, "fashion_mnist": 0.88}
_TORCH = ("torch==2.13.0+cpu", "numpy")  # the build for CPUs: the registry's own brings gigabytes of CUDA
# Its threads otherwise spin while they wait for each other: with any other process on the cores, 20 times as slow.
_TORCH_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
_BATCH_SIZE = 256  # of the recipe mnist/benchmark
_OURS = f"ours, batch {_BATCH_SIZE}"


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
    contestants = {_OURS: [*ours, "--batch-size", str(_BATCH_SIZE)]}
    contestants["ours, in bfloat16"] = [*contestants[_OURS], "--precision", "mixed_bfloat16"]
    contestants["Keras fit, its default (32)"] = keras
    contestants[f"Keras fit, batch {_BATCH_SIZE}"] = [*keras, "--batch-size", str(_BATCH_SIZE)]
    if torch:
        script = [torch, str(CHECKOUT / "benchmarks" / "torch_reference.py")]
        contestants["PyTorch, its tutorial's (64)"] = script
        contestants[f"PyTorch, batch {_BATCH_SIZE}"] = [*script, "--batch-size", str(_BATCH_SIZE)]
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


def show_race(results: dict[str, list[Any]], target: float) -> None:
    """Prints the medians over the rounds, with ratios to ours."""
    title = f"s to {target:.1%}"
    print(f"{'':30} {title:>11} {'of ours':>8} {'epochs':>7} {'s per epoch':>12} {'accuracy':>9}")
    ours = statistics.median(epochs[-1][0] for epochs in results[_OURS])
    for name, rounds in results.items():
        seconds = statistics.median(epochs[-1][0] for epochs in rounds)
        per_epoch = statistics.median(epochs[-1][0] / len(epochs) for epochs in rounds)
        accuracy = statistics.median(epochs[-1][1] for epochs in rounds)
        missed = sum(epochs[-1][1] < target for epochs in rounds)
        note = f"  (not reached in {missed} of {len(rounds)} rounds)" if missed else ""
        count = statistics.median(len(epochs) for epochs in rounds)
        print(f"{name:30} {seconds:11.1f} {seconds / ours:8.2f} {count:7.1f} {per_epoch:12.2f} {accuracy:9.4f}{note}")


def show_variants(title: str, results: dict[str, Any]) -> None:
    """Prints seconds per epoch, and the share of them that was waiting for input."""
    baseline = next(iter(results.values()))["mean"]
    print(f"\n{title:24} {'s per epoch':>12} {'ratio':>6} {'longest':>8} {'first':>6} {'input wait':>11}")
    for name, row in results.items():
        print(
            f"{name:24} {row['mean']:12.2f} {row['mean'] / baseline:6.2f} {row['longest']:8.2f} {row['first']:6.2f} "
            f"{row['input_wait_share']:11.1%}"
        )


def main() -> int:
    """Runs what is asked for and prints it; 0 where all of it ran."""
    parser = argparse.ArgumentParser(description="Compare training with plain Keras and PyTorch.")
    parser.add_argument("--dataset", choices=sorted(_TARGETS), default="mnist")
    parser.add_argument("--target", type=float, help="test accuracy to train to (default: 0.98, Fashion-MNIST 0.88)")
    parser.add_argument("--only", default=",".join(_PARTS), metavar=",".join(_PARTS), help="which parts (default: all)")
    parser.add_argument("--rounds", type=int, default=2, help="of the race (default: 2)")
    parser.add_argument("--epochs", type=int, default=3, help="of each switch, the first of which is left out")
    parser.add_argument("--torch-python", metavar="FILE", help="the interpreter of an environment with PyTorch")
    parser.add_argument("--home", metavar="DIR", help="whose prepared datasets to use (default: as for mnist-tfx)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    args = parser.parse_args()
    parts = args.only.split(",")
    if unknown := [part for part in parts if part not in _PARTS]:
        parser.error(f"--only: {', '.join(unknown)} is none of {', '.join(_PARTS)}")
    if args.rounds < 1 or args.epochs < 2:
        parser.error("--rounds must be 1 or more, --epochs 2 or more")

    datasets = Home.resolve(args.home).datasets
    prepare(args.dataset, datasets)
    arrays = load_arrays(args.dataset, datasets)
    target = args.target or _TARGETS[args.dataset]
    answer: dict[str, Any] = {}
    if "race" in parts:
        with tempfile.TemporaryDirectory(prefix="mnist-tfx-benchmark-") as work:
            np.savez(Path(work) / "arrays.npz", allow_pickle=False, **arrays)
            try:
                answer["race"] = race(
                    Path(work) / "arrays.npz", target, args.rounds, torch_python(args.torch_python), Path(work)
                )
            except measure.BenchmarkFailed as error:
                print(error, file=sys.stderr)
                return 1
    if {"switches", "input"} & set(parts):
        from benchmarks import training_switches  # TensorFlow: seconds, which --help does without

        for part, variants in (
            ("switches", training_switches.SWITCHES),
            ("input", training_switches.AUGMENTATIONS),
        ):
            if part in parts:
                answer[part] = {}
                for name, variant in variants.items():
                    print(f"{part}: {name} ... (load average {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
                    measured = training_switches.measure(arrays["x_train"], arrays["y_train"], variant, args.epochs)
                    answer[part][name] = asdict(measured)
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    if "race" in answer:
        show_race(answer["race"], target)
    if "switches" in answer:
        show_variants("switch", answer["switches"])
    if "input" in answer:
        show_variants("augmentation", answer["input"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
