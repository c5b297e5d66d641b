"""Names of runs: `20261122-143000-mnist`, the UTC second of the start and the dataset. Imports no TensorFlow."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from mnist_tfx.contract.names import model_name, plain_name


def dataset_of(run_id: str, pipeline: str) -> str:
    """The dataset that a run id names, if a pipeline of this name would be that of it; else what its name may mean."""
    named = run_id.split("-", maxsplit=2)[-1]
    return named if plain_name(named) == pipeline else pipeline.replace("-", "_")


def claim_run_id(runs: Path, dataset: str) -> str:
    """A run id that no other run has; its folder `runs/<run id>` is made, and makes the claim.

    UTC, so that ids sort by time even in the hour when clocks go back; where somebody sets the clock back they do not,
    and nothing relies on it. A run that ends within the second of its start (everything cached) would share its id with
    the next one: that one waits for the next second.
    """
    while True:
        run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{model_name(dataset)}"
        try:
            (runs / run_id).mkdir(parents=True)
        except FileExistsError:
            time.sleep(0.05)
        else:
            return run_id
