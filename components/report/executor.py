"""Executor of `Report`."""

from __future__ import annotations

import json
import logging
from typing import Any

from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import Artifact, artifact_utils

from mnist_tfx.components.code_version import code_version, package_versions
from mnist_tfx.components.report.artifact import html_file
from mnist_tfx.components.report.content import ArtifactRow, ExecutionRow
from mnist_tfx.components.report.make import make_report, write_minimal
from mnist_tfx.components.report.sources import Sources

_LOGGER = logging.getLogger(__name__)
# Which component makes each input, and what it calls it; in the order of the pipeline.
_MADE_BY = {
    "examples": ("TfdsExampleGen", "examples"),
    "schema": ("ImportSchemaGen", "schema"),
    "statistics": ("StatisticsGen", "statistics"),
    "anomalies": ("ExampleValidator", "anomalies"),
    "data_blessing": ("DataGate", "blessing"),
    "model": ("Trainer", "model"),
    "baseline": ("Baseline", "baseline"),
    "evaluation": ("Evaluator", "evaluation"),
    "model_blessing": ("Evaluator", "blessing"),
    "infra_blessing": ("InfraValidator", "blessing"),
    "pushed_model": ("Pusher", "pushed_model"),
}


class Executor(BaseExecutor):
    """Writes the page, or one that says why there is none."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Makes the report of what the artifacts tell; whatever goes wrong is logged, and fails nobody's run."""
        self._log_startup(input_dict, output_dict, exec_properties)
        path = html_file(artifact_utils.get_single_instance(output_dict["report"]).uri)
        run_id = getattr(self._context, "pipeline_run_id", None) or ""
        try:
            try:
                make_report(_sources(input_dict, exec_properties, run_id), path)
            except Exception as error:
                _LOGGER.exception("the report could not be made")
                write_minimal(path, exec_properties.get("dataset", ""), run_id, error)
        except Exception:
            _LOGGER.exception("the report could not be written")


def _sources(input_dict: dict[str, list[Artifact]], exec_properties: dict[str, Any], run_id: str) -> Sources:
    recipe = json.loads(exec_properties["recipe"])
    return Sources(
        dataset=exec_properties["dataset"],
        class_names=tuple(json.loads(exec_properties["class_names"])),
        image_shape=tuple(recipe["data"]["image_shape"]),
        executions=_executions(input_dict),
        run_id=run_id,
        recipe_name=exec_properties["recipe_name"],
        recipe=recipe,
        data_fingerprint=exec_properties["data_fingerprint"],
        versions=package_versions(),
        code_version=code_version(),
    )


def _executions(input_dict: dict[str, list[Artifact]]) -> tuple[ExecutionRow, ...]:
    """The components that made the inputs; of their executions a component is told nothing."""
    made: dict[str, list[ArtifactRow]] = {}
    for key, (component, name) in _MADE_BY.items():
        for artifact in input_dict.get(key, ()):
            made.setdefault(component, []).append(_row(name, artifact))
    return tuple(
        ExecutionRow(None, component, "", begun=None, seconds=None, inputs=(), outputs=tuple(rows))
        for component, rows in made.items()
    )


def _row(name: str, artifact: Artifact) -> ArtifactRow:
    proto = artifact.mlmd_artifact
    values = {**proto.properties, **proto.custom_properties}
    return ArtifactRow(
        id=artifact.id or None,
        type=artifact.type_name,
        name=name,
        uri=artifact.uri,
        properties={key: getattr(value, value.WhichOneof("value")) for key, value in sorted(values.items())},
    )
