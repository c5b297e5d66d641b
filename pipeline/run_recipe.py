"""Runs a recipe on this machine: whole, or up to one component. Imports no TensorFlow before a run has its log."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tfx.components.report.run import Run
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.contract.names import model_name
from mnist_tfx.pipeline.data import prepare_dataset
from mnist_tfx.pipeline.home import RUN_LOG, Home
from mnist_tfx.pipeline.log_capture import output_to
from mnist_tfx.pipeline.running.loading import collector_paused
from mnist_tfx.pipeline.runs.ids import claim_run_id
from mnist_tfx.pipeline.runs.plan import write_plan
from mnist_tfx.pipeline.runs.store import load_run, open_store

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline
    from tfx.types import Artifact

    from mnist_tfx.components.datasets.prepared import PreparedDataset
    from mnist_tfx.components.trainer.config import TrainerConfig
    from mnist_tfx.pipeline.recipes import Recipe
    from mnist_tfx.pipeline.running.local_runner import RunResult

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartialRun:
    """What the first components made.

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
        return self.folder / RUN_LOG


def run_whole(recipes: Sequence[Recipe], home: Home, *, enable_cache: bool = True) -> Iterator[Run]:
    """Runs each recipe in turn, with its report; a failed run is told like others, and keeps none from running.

    The caller holds the home's lock. What ends a later run takes nothing from those that were told.

    Raises:
        PipelineError: ML Metadata, or the data of a recipe, cannot be had.
        KeyboardInterrupt: the user stopped it.
    """
    open_store(home.metadata_db)  # a damaged one is known before anything is fetched
    # All data first: what cannot be had is known before the first model is trained.
    planned = [(recipe, prepare_dataset(recipe, home)) for recipe in recipes]
    for recipe, dataset in planned:
        yield _run_one(_plan(recipe, dataset, home, enable_cache=enable_cache), home)


def run_until(component: str, recipe: Recipe, home: Home, *, enable_cache: bool = True) -> PartialRun:
    """Runs a component of the recipe's pipeline and what it needs, as a run of its own that `mnist-tfx runs` lists.

    The caller holds the home's lock.

    Raises:
        PipelineError: a component failed.
        KeyboardInterrupt: the user stopped it.
    """
    open_store(home.metadata_db)
    planned = _plan(recipe, prepare_dataset(recipe, home), home, enable_cache=enable_cache)
    outputs = {node.node_id: node.outputs for node in planned.execute(until=component).nodes}
    return PartialRun(planned.log_file.parent, planned.config, outputs)


@dataclass(frozen=True)
class _Planned:
    """A run that is described but not begun."""

    recipe: Recipe
    dataset: PreparedDataset
    run_id: str
    log_file: Path
    pipeline: Pipeline

    @property
    def config(self) -> TrainerConfig:
        """What the pipeline tells its Trainer."""
        from mnist_tfx.components.trainer.config import TrainerConfig

        [trainer] = [node for node in self.pipeline.components if node.id == "Trainer"]
        return TrainerConfig.from_json(json.loads(trainer.exec_properties["custom_config"]))

    def execute(self, until: str | None = None) -> RunResult:
        """Runs all, or a component and what it needs, showing it on stderr."""
        from mnist_tfx.pipeline.running.live_view import make_observer

        with output_to(self.log_file), collector_paused():
            from mnist_tfx.components.infra_validator.local_server import EarlyStart
            from mnist_tfx.pipeline.running.describe import describer
            from mnist_tfx.pipeline.running.local_runner import run_pipeline
        needed = {until} if until else {node.id for node in self.pipeline.components}
        for node in reversed(self.pipeline.components):  # they are in an order to run in
            if node.id in needed:
                needed.update(upstream.id for upstream in node.upstream_nodes)
        node_ids = [node.id for node in self.pipeline.components if node.id in needed]
        with (
            make_observer(self.dataset.name, node_ids, describer(self.dataset.class_names)) as observer,
            EarlyStart(self.recipe.infra, model_name(self.dataset.name)) as model_server,
        ):
            return run_pipeline(
                self.pipeline,
                run_id=self.run_id,
                log_file=self.log_file,
                observer=observer,
                only=node_ids,
                after={} if until else {"Trainer": model_server.start},
            )


def _plan(recipe: Recipe, dataset: PreparedDataset, home: Home, *, enable_cache: bool) -> _Planned:
    """Describes a run that keeps everything under `home`."""
    run_id = claim_run_id(home.runs(dataset.name), dataset.name)
    folder, log_file = home.runs(dataset.name) / run_id, home.log(dataset.name, run_id)
    with output_to(log_file):  # TensorFlow and TFX are chatty from their import on
        with collector_paused():
            from mnist_tfx.components.infra_validator.local_server import foreign_server
            from mnist_tfx.pipeline.dag import Paths, create_pipeline
        write_plan(recipe, dataset, folder)
        paths = Paths(
            pipeline_root=str(folder),
            data_dir=str(dataset.data_dir),
            schema_file=str(recipe.project.snapshot_schema(home.cache("schemas"))),
            training_backup=str(home.training_backup(dataset.name)),
            serving=str(home.serving(dataset.name)),
        )
        pipeline = create_pipeline(
            recipe,
            dataset,
            paths,
            model_server=foreign_server(recipe.infra),
            enable_cache=enable_cache,
            metadata_db=home.metadata_db,
        )
    return _Planned(recipe, dataset, run_id, log_file, pipeline)


def _run_one(planned: _Planned, home: Home) -> Run:
    started = time.monotonic()
    error = None
    try:
        planned.execute()
    except PipelineError as failure:
        error = failure
    with output_to(planned.log_file):
        from mnist_tfx.components.report.collect import measured
        from mnist_tfx.pipeline.runs.report import leave_report

        if error is None:
            run = measured(load_run(home.metadata_db, planned.run_id))
        else:
            run = _failed(planned, home, error, time.monotonic() - started)
        report = leave_report(home, run) if run.executions else None
    return replace(run, report=report)


def _failed(planned: _Planned, home: Home, error: PipelineError, seconds: float) -> Run:
    """The run as ML Metadata has it, which may be not at all: it failed before its first component, or the disk did."""
    run = Run(planned.run_id, planned.recipe.project.model, seconds=seconds, log=planned.log_file)
    try:
        run = load_run(home.metadata_db, planned.run_id)
    except Exception:
        _LOGGER.exception("run %s cannot be read from ML Metadata", planned.run_id)
    return replace(run, end="failed", error=error, seconds=run.seconds or seconds)
