"""The pipeline: which component feeds which. The same for every runner, which only supplies paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow_data_validation as tfdv
from tfx.components.evaluator.component import Evaluator
from tfx.components.example_validator.component import ExampleValidator
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.trainer.component import Trainer
from tfx.components.transform.component import Transform
from tfx.components.tuner.component import Tuner
from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import trainer_pb2, transform_pb2

from mnist_tfx.components.baseline.component import Baseline
from mnist_tfx.components.beam_arguments import beam_arguments
from mnist_tfx.components.code_version import add_code_versions, code_version
from mnist_tfx.components.data_gate.component import DataGate
from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.evaluator.config import evaluation_config
from mnist_tfx.components.infra_validator.component import InfraValidator
from mnist_tfx.components.pusher.component import Pusher
from mnist_tfx.components.report.component import Report
from mnist_tfx.components.settings import BeamSettings
from mnist_tfx.components.tfds_example_gen.component import TfdsExampleGen
from mnist_tfx.components.trainer.config import TrainerConfig
from mnist_tfx.components.warm_start.component import WarmStart
from mnist_tfx.contract.errors import UsageError, unknown_name
from mnist_tfx.contract.names import EVAL, TEST, TRAIN, model_name, plain_name
from mnist_tfx.pipeline.recipes import Recipe, recipe_name

_LABELS_COUNTED = 1000  # by TFDV unless told otherwise: the commonest
# Our modules that TFX's components are told to call.
_PREPROCESSING = "mnist_tfx.components.transform.preprocessing"
_TUNER_FN = "mnist_tfx.components.tuner.search"
_RUN_FN = "mnist_tfx.components.trainer.run_fn"
# Those that a component runs and does not import itself, by its id: they are part of its cache key.
CALLED = {
    "Transform": (_PREPROCESSING,),
    "Tuner": (_TUNER_FN,),
    "Trainer": (_RUN_FN,),
    "Evaluator": ("mnist_tfx.components.evaluator.metrics",),
    "InfraValidator": ("mnist_tfx.serving.server.__main__",),
}


@dataclass(frozen=True)
class Paths:
    """Every path a pipeline uses; a runner on a cluster gives addresses in its bucket.

    `training_backup` is for trainings that a later run shall go on with, where no two runs train at once; empty: each
    run keeps its own.
    """

    pipeline_root: str
    data_dir: str
    schema_file: str
    training_backup: str
    serving: str


def create_pipeline(
    recipe: Recipe,
    dataset: PreparedDataset,
    paths: Paths,
    *,
    model_server: str = "",
    enable_cache: bool = True,
    metadata_db: Path | None = None,
) -> Pipeline:
    """Describes the whole run.

    Args:
        recipe: all settings.
        dataset: the prepared data, whose fingerprint enters the cache keys.
        paths: where the run reads and writes.
        model_server: the program that InfraValidator will start, where that is known and not ours.
        enable_cache: whether components with known inputs and parameters are answered from the cache.
        metadata_db: the SQLite file of ML Metadata, for the local runner.
    """
    if recipe.model.output == "sigmoid" and len(dataset.class_names) != 2:
        raise UsageError(
            f"model.output = 'sigmoid' is for two classes, and {dataset.name} has {len(dataset.class_names)}: leave it "
            "out, or make two of them with data.classes."
        )
    config, spans = trainer_config(recipe, dataset, paths), dataset.spans.values()
    examples = TfdsExampleGen(
        dataset=dataset.name,
        version=dataset.version,
        fingerprint=dataset.fingerprint,
        data_dir=paths.data_dir,
        splits=recipe.data.splits,
        shards=recipe.data.shards,
        # What has the size already is not decoded.
        fit_to=recipe.data.image_shape
        if recipe.data.resize and {each.image_shape for each in (dataset, *spans)} != {recipe.data.image_shape}
        else None,
        labels=dataset.labels,
        spans={number: span.version for number, span in dataset.spans.items()},
    )
    schema = ImportSchemaGen(schema_file=paths.schema_file)
    statistics = StatisticsGen(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        stats_options=tfdv.StatsOptions(
            enable_semantic_domain_stats=True,  # for the schema's image_domain
            num_rank_histogram_buckets=max(_LABELS_COUNTED, len(dataset.class_names)),
        ),
    )
    anomalies = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    gate = DataGate(
        examples=examples.outputs["examples"],
        statistics=statistics.outputs["statistics"],
        schema=schema.outputs["schema"],
        anomalies=anomalies.outputs["anomalies"],
        dataset=dataset.name,
        image_shape=recipe.data.image_shape,
        serving_dir=paths.serving,
        drift_reference=recipe.data.drift_reference,
    )
    transform = Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn=f"{_PREPROCESSING}.preprocessing_fn",
        custom_config={
            "transform": recipe.transform.model_dump_json(),
            "image_shape": list(recipe.data.image_shape),
        },
        splits_config=transform_pb2.SplitsConfig(analyze=[TRAIN]),
        materialize=False,  # the Trainer decodes once and caches as uint8: a quarter of the floats' size
        disable_analyzer_cache=True,
        disable_statistics=True,
    )
    transform.add_upstream_node(gate)
    components: list[BaseComponent] = [examples, schema, statistics, anomalies, gate, transform]
    tuner = None
    if config.tuner:
        tuner = Tuner(
            tuner_fn=f"{_TUNER_FN}.tuner_fn",
            examples=examples.outputs["examples"],
            transform_graph=transform.outputs["transform_graph"],
            custom_config=config.to_json(),
            train_args=trainer_pb2.TrainArgs(splits=[TRAIN]),
            eval_args=trainer_pb2.EvalArgs(splits=[EVAL]),
        )
        components.append(tuner)
    warm_start = None
    if recipe.training.warm_start:
        warm_start = WarmStart(serving_dir=paths.serving, data_fingerprint=dataset.fingerprint)
        warm_start.add_upstream_node(gate)  # nothing is copied for data that are rejected
        components.append(warm_start)
    trainer = Trainer(
        run_fn=f"{_RUN_FN}.run_fn",
        examples=examples.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        hyperparameters=tuner.outputs["best_hyperparameters"] if tuner else None,
        base_model=warm_start.outputs["base_model"] if warm_start else None,
        custom_config=config.to_json(),
        train_args=trainer_pb2.TrainArgs(splits=[TRAIN]),
        eval_args=trainer_pb2.EvalArgs(splits=[EVAL]),
    )
    components.append(trainer)
    baseline = None
    if recipe.evaluation.baseline == "served":
        baseline = Baseline(
            model=trainer.outputs["model"],
            serving_dir=paths.serving,
        )
        components.append(baseline)
    evaluator = Evaluator(
        examples=examples.outputs["examples"],
        example_splits=[TEST],
        model=trainer.outputs["model"],
        baseline_model=baseline.outputs["baseline"] if baseline else None,
        schema=schema.outputs["schema"],
        eval_config=evaluation_config(recipe.evaluation, len(dataset.class_names), dataset.spans),
    )
    infra_validator = InfraValidator(
        model=trainer.outputs["model"],
        examples=examples.outputs["examples"],
        settings=recipe.infra,
        model_name=model_name(dataset.name),
        model_server=model_server,
    )
    infra_validator.add_upstream_node(evaluator)
    push = Pusher(
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=infra_validator.outputs["blessing"],
        statistics=statistics.outputs["statistics"],
        examples=examples.outputs["examples"],
        serving_dir=paths.serving,
        withheld="" if recipe.push.enabled else recipe.push.reason,
        baseline=recipe.evaluation.baseline,
        drift_reference=recipe.data.drift_reference,
    )
    report = Report(
        inputs={
            "examples": examples.outputs["examples"],
            "schema": schema.outputs["schema"],
            "statistics": statistics.outputs["statistics"],
            "anomalies": anomalies.outputs["anomalies"],
            "data_blessing": gate.outputs["blessing"],
            "model": trainer.outputs["model"],
            "baseline": baseline.outputs["baseline"] if baseline else None,
            "evaluation": evaluator.outputs["evaluation"],
            "model_blessing": evaluator.outputs["blessing"],
            "infra_blessing": infra_validator.outputs["blessing"],
            "pushed_model": push.outputs["pushed_model"],
        },
        dataset=dataset.name,
        class_names=dataset.class_names,
        data_fingerprint=dataset.fingerprint,
        recipe_name=recipe_name(recipe),
        # Without the places where the data came from: they are of one machine, and change nothing.
        recipe=recipe.model_dump(mode="json", exclude={"data": {"images", "labels", "data_dir", "builder"}}),
    )
    components += [evaluator, infra_validator, push, report]
    add_code_versions(components, CALLED)
    _set_beam_arguments(components, recipe.beam)
    return Pipeline(
        pipeline_name=plain_name(dataset.name),
        pipeline_root=paths.pipeline_root,
        components=components,
        enable_cache=enable_cache,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(metadata_db))
        if metadata_db
        else None,
    )


def _set_beam_arguments(components: Sequence[BaseComponent], beam: BeamSettings) -> None:
    """Each component that uses Beam gets its own arguments, and no other gets any."""
    using = {component.id: component for component in components if isinstance(component, BaseBeamComponent)}
    for name in beam.components:
        if name not in using:
            raise unknown_name("component in beam.components", name, using)
    for name, component in using.items():
        component.with_beam_pipeline_args(beam_arguments(beam, name))


def trainer_config(recipe: Recipe, dataset: PreparedDataset, paths: Paths) -> TrainerConfig:
    """What the Trainer is told; its identity also tells the baseline which served versions are this very model."""
    return TrainerConfig(
        dataset=dataset.name,
        data_fingerprint=dataset.fingerprint,
        class_names=dataset.class_names,
        image_shape=recipe.data.image_shape,
        normalization=recipe.transform.normalization,
        model=recipe.model,
        training=recipe.training,
        augmentation=recipe.augmentation,
        distillation=recipe.distillation,
        code_version=code_version(_RUN_FN),
        backup_dir=paths.training_backup,
        tuner=recipe.tuner if recipe.tuner.tune else None,
    )
