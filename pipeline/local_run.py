"""A local run of one dataset: data, DAG, run, outcome."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tfx.orchestration.pipeline import Pipeline
from tfx.types import Artifact

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.evaluation_result import read_quality
from mnist_tfx.components.infra_validator.local_server import foreign_server
from mnist_tfx.components.infra_validator.report import failed_checks
from mnist_tfx.components.trainer.config import TrainerConfig
from mnist_tfx.contract import remedies
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.pipeline.dag import Paths, create_pipeline, trainer_config
from mnist_tfx.pipeline.outcome import Outcome, Quality
from mnist_tfx.pipeline.recipes import Recipe
from mnist_tfx.pipeline.run_plan import make_plan
from mnist_tfx.pipeline.running.describe import describer
from mnist_tfx.pipeline.running.home import Home
from mnist_tfx.pipeline.running.live_view import make_observer
from mnist_tfx.pipeline.running.local_runner import RunResult, run_pipeline
from mnist_tfx.pipeline.running.log_capture import output_to
from mnist_tfx.pipeline.schemas import snapshot_schema


@dataclass(frozen=True)
class LocalRun:
    """A run that is described but not begun."""

    dataset: PreparedDataset
    run_id: str
    log_file: Path
    pipeline: Pipeline
    config: TrainerConfig

    def execute(self) -> Outcome:
        """Runs it, showing it on stderr; a failed run is an outcome too. The caller holds the home's lock.

        Raises:
            KeyboardInterrupt: the user stopped it.
        """
        started = time.monotonic()
        node_ids = [component.id for component in self.pipeline.components]
        try:
            with make_observer(self.dataset.name, node_ids, describer(self.dataset.class_names)) as observer:
                result = run_pipeline(self.pipeline, run_id=self.run_id, log_file=self.log_file, observer=observer)
        except PipelineError as error:
            return Outcome(self.dataset.name, self.run_id, time.monotonic() - started, (), None, (), None, error)
        with output_to(self.log_file):
            return outcome_of(self.dataset, result, time.monotonic() - started)

    def execute_until(self, component: str) -> RunResult:
        """Runs one component and what it needs, showing it on stderr. The caller holds the home's lock.

        Raises:
            PipelineError: a component failed.
            KeyboardInterrupt: the user stopped it.
        """
        needed = {component}
        for node in reversed(self.pipeline.components):  # they are in an order to run in
            if node.id in needed:
                needed.update(upstream.id for upstream in node.upstream_nodes)
        node_ids = [node.id for node in self.pipeline.components if node.id in needed]
        with make_observer(self.dataset.name, node_ids, describer(self.dataset.class_names)) as observer:
            return run_pipeline(
                self.pipeline, run_id=self.run_id, log_file=self.log_file, observer=observer, only=node_ids
            )


def plan_run(
    recipe: Recipe, dataset: PreparedDataset, home: Home, run_id: str, log_file: Path, *, enable_cache: bool
) -> LocalRun:
    """Describes a run that keeps everything under `home`."""
    run_folder = home.runs(dataset.name) / run_id
    make_plan(recipe, dataset).write(run_folder)
    paths = Paths(
        pipeline_root=str(run_folder),
        data_dir=str(home.datasets),
        schema_file=str(snapshot_schema(dataset.name, home.cache("schemas"))),
        training_backup=str(home.cache("training_backup") / dataset.name),
        serving=str(home.serving(dataset.name)),
    )
    config = trainer_config(recipe, dataset, paths)
    pipeline = create_pipeline(
        recipe,
        dataset,
        paths,
        model_server=foreign_server(recipe.infra),
        enable_cache=enable_cache,
        metadata_db=home.metadata_db,
    )
    return LocalRun(dataset, run_id, log_file, pipeline, config)


def outcome_of(dataset: PreparedDataset, result: RunResult, seconds: float) -> Outcome:
    """What a run in which every node finished came to, read from its artifacts."""
    nodes = {node.node_id: node for node in result.nodes}

    def output(node_id: str, key: str) -> Artifact:
        [artifact] = nodes[node_id].outputs[key]
        return artifact

    measured = read_quality(output("Evaluator", "evaluation").uri, dataset.class_names)
    worst_class, worst_accuracy = measured.worst_class
    pushed = output("Pusher", "pushed_model")
    properties = {name: pushed.get_custom_property(name) for name in ("pushed", "baseline", "drift_reference")}
    return Outcome(
        dataset=dataset.name,
        run=result.run_id,
        seconds=seconds,
        components=tuple(
            {"id": node.node_id, "seconds": round(node.seconds, 2), "cached": node.cached} for node in result.nodes
        ),
        quality=Quality(
            accuracy=measured.accuracy,
            worst_class=worst_class,
            worst_class_accuracy=worst_accuracy,
            baseline_version=output("Baseline", "baseline").get_string_custom_property("version")
            if "Baseline" in nodes
            else None,
            baseline_accuracy=measured.baseline_accuracy,
            broken_bounds=measured.broken_bounds,
        ),
        failed_checks=failed_checks(output("InfraValidator", "blessing").uri),
        pushed_version=pushed.get_string_custom_property("pushed_version") if properties["pushed"] else None,
        error=None,
        not_pushed=pushed.get_string_custom_property("not_pushed"),
        cautions=remedies.cautions(properties),
    )
