"""Our pipeline beside TFX's own example and a plain Keras script: time and memory, same machine, same 70,000 images.

    .venv/bin/python -m benchmarks.pipeline [--only a,b,c] [--rounds 3] [--home DIR]

a  `mnist-tfx run --dataset mnist --recipe benchmark --no-cache`: 5 epochs of 2 x 512
b  TFX's MNIST example as installed: 4.3 epochs of 2 x 64 on two thirds of the images (5,000 steps of 40)
c  a plain Keras script, 5 epochs of 2 x 512: no statistics, no checks, no export

Each is a process of its own, one after the other, timed from outside with its imports. Before the clock starts,
the data lies prepared on the disk in the form that each reads. Memory is the largest sum over the process tree.
`benchmarks.scale` tells how ours grows with the data, `benchmarks.image_import` the import of a folder of images.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import measure, our_pipeline, tfx_reference
from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.pipeline.home import CHECKOUT, Home
from mnist_tfx.pipeline.recipes import load_recipe

_NOT_IN_B = "InfraValidator"
_BY_HAND = "\n## What was tried"
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


def compare(names: Sequence[str], rounds: int, datasets: Path, work: Path) -> dict[str, list[Result]]:
    """Runs the named benchmarks one after the other, `rounds` times."""
    results: dict[str, list[Result]] = {name: [] for name in names}
    for number, name in itertools.product(range(rounds), names):
        load = os.getloadavg()[0]
        print(f"round {number + 1}, {name}: {TITLES[name]} ... (load average {load:.1f})", file=sys.stderr, flush=True)
        results[name].append(BENCHMARKS[name](datasets, work / str(number)))
    return results


def page(results: Mapping[str, Sequence[Result]], load: float) -> str:
    """The medians as Markdown, with ratios to ours, and the parts of the round in the middle."""
    middle = {name: sorted(rounds, key=lambda each: each.seconds)[len(rounds) // 2] for name, rounds in results.items()}
    ours, count = middle["a"], len(results["a"])
    lines = [
        "# Our pipeline beside TFX's example and plain Keras",
        "",
        f"`python -m benchmarks.pipeline` writes this page; what each does is said there. {measure.machine()};",
        f"load average {load:.1f} before. Medians of {count} round{'s'[: count > 1]}, one process after the other.",
        "",
        "| | seconds | of ours | peak MiB | of ours | accuracy |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, each in middle.items():
        accuracy = "" if each.accuracy is None else f"{each.accuracy:.4f}"
        times, memory = each.seconds / ours.seconds, each.peak_mib / ours.peak_mib
        cells = (
            TITLES[name],
            f"{each.seconds:.1f}",
            f"{times:.2f}",
            f"{each.peak_mib:,.0f}",
            f"{memory:.2f}",
            accuracy,
        )
        lines.append(f"| {' | '.join(cells)} |")
    if "b" in middle:
        alike = ours.seconds - ours.components.get(_NOT_IN_B, 0.0)
        ratio = middle["b"].seconds / alike
        lines += [
            "",
            f"TFX's example has no {_NOT_IN_B}: without it ours takes {alike:.1f} s, TFX's {ratio:.2f} times that.",
        ]
    for name, each in middle.items():
        parts = each.components | {"imports and the rest": each.seconds - sum(each.components.values())}
        told = ", ".join(f"{part} {seconds:.1f}" for part, seconds in parts.items())
        lines += ["", f"Seconds of {TITLES[name]}: {told}."]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs what is asked for, prints the page and writes it; 0 where all of it ran."""
    parser = argparse.ArgumentParser(description="Compare our pipeline with TFX's example and with plain Keras.")
    parser.add_argument("--only", default="a,b,c", metavar="a,b,c", help="which to run, a among them (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="of all that is run (default: 3)")
    parser.add_argument("--home", metavar="DIR", help="whose prepared datasets to use (default: as for mnist-tfx)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"), metavar="FILE")
    args = parser.parse_args()
    names = args.only.split(",")
    if "a" not in names or not set(names) <= set(BENCHMARKS):
        parser.error(f"--only: a and any of {', '.join(BENCHMARKS)}")

    datasets = Home.resolve(args.home).datasets
    prepare("mnist", datasets)
    load = os.getloadavg()[0]
    try:
        with tempfile.TemporaryDirectory(prefix="mnist-tfx-benchmark-") as work:
            text = page(compare(names, args.rounds, datasets, Path(work)), load)
    except measure.BenchmarkFailed as error:
        print(error, file=sys.stderr)
        return 1
    # What was tried is written by hand, below the figures.
    before = args.output.read_text() if args.output.exists() else ""
    args.output.write_text(text + "".join(before.partition(_BY_HAND)[1:]))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
