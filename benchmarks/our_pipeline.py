"""Our pipeline as a measured command: a run in a fresh home that shares only prepared datasets with the real one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from mnist_tfx.pipeline.home import Home

COMMAND = Path(sys.executable).with_name("mnist-tfx")


@dataclass(frozen=True)
class OurRun:
    """A finished run: measured from outside, and what it says of itself."""

    measurement: measure.Measurement
    components: dict[str, float]  # seconds by component id, in order
    accuracy: float


def run(dataset: str, recipe: str, datasets: Path, work: Path, settings: Sequence[str] = ()) -> OurRun:
    """Runs `dataset` with `recipe` and `settings`, nothing cached.

    Args:
        dataset: a dataset that is prepared in `datasets`.
        recipe: the name of one of its recipes.
        datasets: the TFDS data_dir.
        work: an empty or missing folder, which becomes the run's home.
        settings: KEY=VALUE for `--set`.
    """
    home = Home(work)
    home.root.mkdir(parents=True, exist_ok=True)
    home.datasets.symlink_to(datasets, target_is_directory=True)
    command = [str(COMMAND), "run", "--dataset", dataset, "--recipe", recipe, "--home", str(home.root)]
    command += ["--no-cache", "--json", *(word for setting in settings for word in ("--set", setting))]
    measurement = measure.run(command, log=work.with_suffix(".log"))
    [result] = json.loads(measurement.stdout)
    return OurRun(measurement, {each["id"]: each["seconds"] for each in result["components"]}, result["accuracy"])
