"""One recipe with several seeds: how good its models are, and how far apart. No TensorFlow, except to compare them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from mnist_tfx.components.report.run import Run
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.log_capture import output_to

_SEED = "training.seed"


def each_seed(number: int | None, settings: Sequence[str]) -> list[tuple[str, ...]]:
    """What `--seeds` adds to `--set`, run by run.

    Raises:
        UsageError: there are not two seeds, or `settings` has one.
    """
    if number is None:
        return [()]
    if number < 2:
        raise UsageError(f"--seeds is {number}: a deviation takes 2 seeds or more.")
    if any(setting.partition("=")[0].strip() in (_SEED, "seed") for setting in settings):
        raise UsageError(f"--seeds sets {_SEED}: leave it out of --set.")
    return [(f"{_SEED}={seed}",) for seed in range(number)]


def compare_seeds(home: Home, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Leaves a page with the runs of each dataset beside each other, and sums them up.

    Returns:
        By dataset: `dataset`, `accuracies` of the runs that were evaluated, their `mean` and sample standard
        `deviation` (None of too few), and `report`, the page's path (None where it could not be made).
    """
    by_dataset: dict[str, list[Run]] = {}
    for run in runs:
        by_dataset.setdefault(run.dataset, []).append(run)
    with output_to(home.reports / "report.log"):
        from mnist_tfx.pipeline.runs.report import leave_comparison

        return [
            {"dataset": dataset, **spread([run.quality.accuracy for run in of_dataset if run.quality])}
            | {"report": leave_comparison(home, of_dataset)}
            for dataset, of_dataset in by_dataset.items()
        ]


def spread(accuracies: Sequence[float]) -> dict[str, Any]:
    """`accuracies`, `mean` and `deviation`."""
    return {
        "accuracies": accuracies,
        "mean": statistics.mean(accuracies) if accuracies else None,
        "deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
    }
