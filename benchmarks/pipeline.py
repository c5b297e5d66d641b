"""Our pipeline beside TFX's own example and a plain Keras script: time and memory, same machine, same 70,000 images.

    .venv/bin/python -m benchmarks.pipeline [--only a,b,c] [--home DIR] [--json]
    .venv/bin/python -m benchmarks.pipeline --scale 10 [--home DIR] [--json]

a  `mnist-tfx run --dataset mnist --recipe benchmark --no-cache`: 5 epochs of 2 x 512
b  TFX's MNIST example as installed: 4.3 epochs of 2 x 64 on two thirds of the images (5,000 steps of 40)
c  a plain Keras script, 5 epochs of 2 x 512: no statistics, no checks, no export

Each is a process of its own, one after the other, timed from outside with its imports. Before the clock starts,
the data lies prepared on the disk in the form that each reads. Memory is the largest sum over the process tree.
`benchmarks.image_import` tells how the import of a folder of images grows, which comes before.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import measure, our_pipeline, scale, tfx_reference
from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.pipeline.home import CHECKOUT, Home
from mnist_tfx.pipeline.recipes import load_recipe

_NOT_IN_B = "InfraValidator"
TITLES = {"a": "mnist-tfx run", "b": "TFX's own example", "c": "plain Keras script"}


@dataclass(frozen=True)
class Result:
    """What one of the three took."""

    seconds: float
    peak_mib: float
    accuracy: float | None = None  # on split test, where the program tells
    components: dict[str, float] = field(default_factory=dict)  # seconds of each


def run_ours(datasets: Path, work: Path) -> Result:
    """Benchmark a."""
    ours = our_pipeline.run("mnist", "benchmark", datasets, work / "ours")
    return Result(ours.measurement.seconds, ours.measurement.peak_mib, ours.accuracy, ours.components)


def run_example(datasets: Path, work: Path) -> Result:
    """Benchmark b."""
    home = work / "example"
    tfx_reference.prepare(datasets, home)
    measured = tfx_reference.run(home)
    return Result(measured.seconds, measured.peak_mib, components=tfx_reference.component_seconds(home))


def run_keras(datasets: Path, work: Path) -> Result:
    """Benchmark c, with the epochs and the batch size of a."""
    training = load_recipe("mnist", "benchmark").training
    command = [sys.executable, "-m", "benchmarks.keras_reference", "--data-dir", str(datasets)]
    command += ["--epochs", str(training.epochs), "--batch-size", str(training.batch_size)]
    measured = measure.run(command, log=work / "keras.log", cwd=CHECKOUT)
    answer = json.loads(measured.stdout.splitlines()[-1])
    return Result(measured.seconds, measured.peak_mib, answer["accuracy"], {"fit": answer["fit_seconds"]})


BENCHMARKS = {"a": run_ours, "b": run_example, "c": run_keras}


def compare(names: Sequence[str], datasets: Path, work: Path) -> dict[str, Result]:
    """Runs the named benchmarks one after the other."""
    results = {}
    for name in names:
        print(f"{name}: {TITLES[name]} ... (load average {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
        results[name] = BENCHMARKS[name](datasets, work)
    return results


def show(results: dict[str, Result]) -> None:
    """Prints the results as text, with ratios to a."""
    print(f"{'':22} {'seconds':>8} {'of a':>6} {'peak MiB':>9} {'of a':>6} {'accuracy':>9}")
    ours = results.get("a")
    for name, result in results.items():
        time_ratio = f"{result.seconds / ours.seconds:6.2f}" if ours else ""
        memory_ratio = f"{result.peak_mib / ours.peak_mib:6.2f}" if ours else ""
        accuracy = f"{result.accuracy:9.4f}" if result.accuracy is not None else ""
        title = f"{name}  {TITLES[name]}"
        print(f"{title:22} {result.seconds:8.1f} {time_ratio:6} {result.peak_mib:9,.0f} {memory_ratio:6} {accuracy:9}")
    if ours and "b" in results:
        alike = ours.seconds - ours.components.get(_NOT_IN_B, 0.0)
        print(f"\nb has no {_NOT_IN_B}; without it a is {alike:.1f} s, b {results['b'].seconds / alike:.2f} times that")
    for name, result in results.items():
        print(f"\n{name}  {TITLES[name]}: seconds of each part")
        for component, seconds in result.components.items():
            print(f"   {component:20} {seconds:7.1f}")
        print(f"   {'imports and the rest':20} {result.seconds - sum(result.components.values()):7.1f}")


def main() -> int:
    """Runs what is asked for and prints it; 0 where all of it ran."""
    parser = argparse.ArgumentParser(description="Compare our pipeline with TFX's example and with plain Keras.")
    parser.add_argument("--only", default="a,b,c", metavar="a,b,c", help="which to run, in this order (default: all)")
    parser.add_argument(
        "--scale", type=int, metavar="N", help="instead: our pipeline on N times the data and on the data once"
    )
    parser.add_argument("--home", metavar="DIR", help="whose prepared datasets to use (default: as for mnist-tfx)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    args = parser.parse_args()
    names = args.only.split(",")
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"--only: {', '.join(unknown)} is none of {', '.join(BENCHMARKS)}")
    if args.scale is not None and args.scale < 2:
        parser.error("--scale must be 2 or more")

    datasets = Home.resolve(args.home).datasets
    prepare("mnist", datasets)
    try:
        with tempfile.TemporaryDirectory(prefix="mnist-tfx-benchmark-") as work:
            if args.scale is not None:
                runs = scale.compare(datasets, Path(work), args.scale)
                if args.json:
                    print(json.dumps({times: asdict(run) for times, run in runs.items()}, indent=2))
                else:
                    scale.show(runs)
                return 0
            results = compare(names, datasets, Path(work))
    except measure.BenchmarkFailed as error:
        print(error, file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({name: asdict(result) for name, result in results.items()}, indent=2))
    else:
        show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
