"""How time and memory of Beam's steps change with workers and data, on a Flink cluster of tests/real/beam.

    .venv/bin/python -m benchmarks.beam_scale [--runs 1x1,10x1,1x2,10x2] [--home DIR] [--output FILE]

As root, on Linux, with Java, Maven and Go. 10x2: MNIST's split train ten times, and a cluster of two workers, each a
TaskManager of one slot and a worker pool. Memory is the largest sum over the pools' Python processes. More workers
than processors tell what distribution costs, not what it earns.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure, our_pipeline, scale
from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.pipeline.home import CHECKOUT, Home
from tests.real.beam.flink_cluster import flink_cluster
from tests.real.beam.machines import network
from tests.real.beam.programs import Programs, programs

STEPS = ("TfdsExampleGen", "StatisticsGen", "DataGate", "Transform", "Evaluator")
_SMALL = ("model.hidden_layers=[32]",)  # the Trainer is not what is measured


@dataclass(frozen=True)
class Row:
    """Beam's steps of one run."""

    data: int  # times split train
    workers: int
    seconds: Mapping[str, float]  # of each step
    peak_mib: float  # of the workers

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def run(work: Path, parts: Programs, settings: Sequence[str], data: int, workers: int) -> Row:
    """Runs the pipeline with a cluster of its own.

    Args:
        work: its folder `data` has the datasets.
        parts: what the cluster is made of.
        settings: of a run on these data.
        data: how many times split train is there.
        workers: how many.
    """
    folder = work / f"{data}x{workers}"
    with network(work, folder / "image", folder / "logs") as joined:
        cluster = flink_cluster(joined, parts, workers=workers, environment={})
        beam = [f"beam.{key}={value}" for key, value in cluster.settings if value]
        datasets, given = work / str(data) / "datasets", [*settings, *_SMALL, *beam]
        with measure.MemorySampler(*(pool.pid for pool in cluster.pools)) as sampler:
            ran = our_pipeline.run(scale.STAND_IN, "default", datasets, folder / "home", given)
    return Row(data, workers, {step: ran.components[step] for step in STEPS}, sampler.peak_bytes / 2**20)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, with ratios to the first."""
    first = rows[0]
    lines = [
        f"| data | workers | seconds | ratio | workers' peak MiB | ratio | {' | '.join(STEPS)} |",
        f"| {' | '.join(['---:'] * (6 + len(STEPS)))} |",
    ]
    for row in rows:
        ratios = (f"{row.total:.0f}", f"{row.total / first.total:.2f}", f"{row.peak_mib:,.0f}")
        steps = (f"{row.seconds[step]:.0f}" for step in STEPS)
        cells = (f"{row.data} x", str(row.workers), *ratios, f"{row.peak_mib / first.peak_mib:.2f}", *steps)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _runs(text: str) -> list[tuple[int, int]]:
    return [(int(data), int(workers)) for data, _, workers in (word.partition("x") for word in text.split(","))]


def main() -> int:
    """Runs what is asked for, and writes the table after each; 0 where all of it ran."""
    parser = argparse.ArgumentParser(description="Beam's steps on a Flink cluster, by data and workers.")
    parser.add_argument("--runs", type=_runs, default="1x1,10x1,1x2,10x2", metavar="1x1,10x2", help="data x workers")
    parser.add_argument("--home", metavar="DIR", help="whose prepared MNIST to use (default: as for mnist-tfx)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"), metavar="FILE")
    args = parser.parse_args()
    datasets = Home.resolve(args.home).datasets
    prepare("mnist", datasets)
    parts = programs(CHECKOUT / ".tools" / "beam")
    rows: list[Row] = []
    settings: dict[int, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="mnist-tfx-benchmark-") as folder:
        work = Path(folder)
        for data, workers in args.runs:
            print(f"data {data} x, workers {workers} ... (load average {os.getloadavg()[0]:.1f})", file=sys.stderr)
            if data not in settings:
                settings[data] = scale.prepare_repeated(datasets, work / str(data), data)
            rows.append(run(work, parts, settings[data], data, workers))
            title = f"# Beam's steps on Flink, one machine with {os.cpu_count()} processors"
            told = f"`python -m benchmarks.beam_scale` writes this table.\n\n{table(rows)}"
            args.output.write_text(f"{title}\n\n{told}\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
