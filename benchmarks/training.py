"""Seconds per epoch with each switch of our training loop, and how long training waits for each augmentation.

    .venv/bin/python -m benchmarks.training [--dataset fashion_mnist] [--only switches,input] [--epochs N]

784-512-512-10 with Adam at 1e-3 on the 60,000 training images, from arrays in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import Any

from benchmarks.race import TARGETS, load_arrays
from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.pipeline.home import Home

_PARTS = ("switches", "input")


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
    parser = argparse.ArgumentParser(description="Measure the switches of the training loop.")
    parser.add_argument("--dataset", choices=sorted(TARGETS), default="mnist")
    parser.add_argument("--only", default=",".join(_PARTS), metavar=",".join(_PARTS), help="which parts (default: all)")
    parser.add_argument("--epochs", type=int, default=3, help="of each switch, the first of which is left out")
    parser.add_argument("--home", metavar="DIR", help="whose prepared datasets to use (default: as for mnist-tfx)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    args = parser.parse_args()
    parts = args.only.split(",")
    if unknown := [part for part in parts if part not in _PARTS]:
        parser.error(f"--only: {', '.join(unknown)} is none of {', '.join(_PARTS)}")
    if args.epochs < 2:
        parser.error("--epochs must be 2 or more")

    datasets = Home.resolve(args.home).datasets
    prepare(args.dataset, datasets)
    arrays = load_arrays(args.dataset, datasets)
    from benchmarks import training_switches  # TensorFlow: seconds, which --help does without

    answer: dict[str, Any] = {}
    for part, variants in (("switches", training_switches.SWITCHES), ("input", training_switches.AUGMENTATIONS)):
        if part in parts:
            answer[part] = {}
            for name, variant in variants.items():
                print(f"{part}: {name} ... (load average {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
                measured = training_switches.measure(arrays["x_train"], arrays["y_train"], variant, args.epochs)
                answer[part][name] = asdict(measured)
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    for part, title in (("switches", "switch"), ("input", "augmentation")):
        if part in answer:
            show_variants(title, answer[part])
    return 0


if __name__ == "__main__":
    sys.exit(main())
