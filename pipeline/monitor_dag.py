"""The pipeline that watches a served model, for a schedule: the schema, and `Monitor`."""

from __future__ import annotations

from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration.pipeline import Pipeline

from mnist_tfx.components.code_version import add_code_versions
from mnist_tfx.components.monitoring.component import Monitor
from mnist_tfx.contract.names import model_name, plain_name
from mnist_tfx.pipeline.recipes import Recipe


def create_monitor_pipeline(
    recipe: Recipe, *, pipeline_root: str, schema_file: str, serving: str, requests: str, enable_cache: bool = True
) -> Pipeline:
    """Describes one look at the request logs.

    Args:
        recipe: its section `monitoring`.
        pipeline_root: where the run writes.
        schema_file: the curated schema.
        serving: base path of the served model.
        requests: prefix of the logs where the recipe names none.
        enable_cache: of the schema; the logs are looked at in each run.
    """
    schema = ImportSchemaGen(schema_file=schema_file)
    monitor = Monitor(
        schema=schema.outputs["schema"],
        model=model_name(recipe.data.dataset),
        serving_dir=serving,
        settings=recipe.monitoring.model_copy(update={"logs": recipe.monitoring.logs or requests}),
        any_size=recipe.data.resize is not None,
    )
    components: list[BaseComponent] = [schema, monitor]
    add_code_versions(components)
    return Pipeline(
        pipeline_name=f"{plain_name(recipe.data.dataset)}-monitor",
        pipeline_root=pipeline_root,
        components=components,
        enable_cache=enable_cache,
    )
