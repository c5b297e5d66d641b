"""Runs the pipeline's first components for a command that needs what they make; the cache answers where it can."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.running.home import Home

if TYPE_CHECKING:
    from tfx.types import Artifact

    from mnist_tfx.components.datasets.prepared import PreparedDataset
    from mnist_tfx.components.trainer.config import TrainerConfig
    from mnist_tfx.pipeline.recipes import Recipe


@dataclass(frozen=True)
class PartialRun:
    """What the components made.

    Attributes:
        folder: the run's own folder, also for what the command adds.
        config: what the Trainer would be told.
        outputs: of each component that ran, or that the cache answered for.
    """

    folder: Path
    config: TrainerConfig
    outputs: Mapping[str, Mapping[str, Sequence[Artifact]]]

    @property
    def log_file(self) -> Path:
        """The run's log."""
        return self.folder / "run.log"


def add_plot_argument(parser: argparse.ArgumentParser, name: str) -> None:
    """Declares `--output`, whose default is a file called `name`."""
    parser.add_argument("-o", "--output", metavar="PNG", help=f"the plot (default: {name} in the run's folder)")


def check_plot_argument(output: str | None) -> None:
    """To be called before the work begins.

    Raises:
        UsageError: no file can be written there.
    """
    if output is not None:
        folder = Path(output).resolve().parent
        if not os.access(folder, os.W_OK) or Path(output).is_dir():
            raise UsageError(f"cannot write the plot {output}: name a file in a folder that exists and can be written.")


def prepare_dataset(recipe: Recipe, home: Home) -> PreparedDataset:
    """The recipe's dataset, fetched or made if need be, with its progress on stderr."""
    from mnist_tfx.components.datasets.prepare import prepare
    from mnist_tfx.pipeline.running.data_progress import shown_progress
    from mnist_tfx.pipeline.running.log_capture import output_to

    settings = recipe.data
    with shown_progress(settings.dataset) as progress, output_to(home.root / "data.log"):
        return prepare(settings.dataset, home.datasets, version=settings.version, progress=progress)


def run_until(component: str, recipe: Recipe, home: Home, *, enable_cache: bool = True) -> PartialRun:
    """Runs a component of the recipe's pipeline and what it needs, as a run of its own that `mnist-tfx runs` lists.

    The caller holds the home's lock.

    Raises:
        PipelineError: a component failed.
        KeyboardInterrupt: the user stopped it.
    """
    from mnist_tfx.pipeline.metadata_store import open_store
    from mnist_tfx.pipeline.run_id import claim_run_id
    from mnist_tfx.pipeline.running.loading import collector_paused
    from mnist_tfx.pipeline.running.log_capture import output_to

    open_store(home.metadata_db)  # a damaged one is known before anything is fetched
    dataset = prepare_dataset(recipe, home)
    run_id = claim_run_id(home.runs(dataset.name), dataset.name)
    folder = home.runs(dataset.name) / run_id
    log_file = folder / "run.log"
    with output_to(log_file):  # TensorFlow and TFX are chatty from their import on
        with collector_paused():
            from mnist_tfx.pipeline.local_run import plan_run
        planned = plan_run(recipe, dataset, home, run_id, log_file, enable_cache=enable_cache)
    result = planned.execute_until(component)
    return PartialRun(folder, planned.config, {node.node_id: node.outputs for node in result.nodes})
