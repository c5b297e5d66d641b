"""Executor of `Report`."""

from __future__ import annotations

import json
import logging
from typing import Any

from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import Artifact, artifact_utils

from mnist_tfx.components.code_version import code_version, package_versions
from mnist_tfx.components.report.artifact import html_file
from mnist_tfx.components.report.make import make_page, minimal_page
from mnist_tfx.components.report.run import Plan, Run, made_by
from mnist_tfx.components.whole_files import write_whole

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
                page, _ = make_page(_run(input_dict, exec_properties, run_id))
            except Exception as error:
                _LOGGER.exception("the report could not be made")
                page = minimal_page(exec_properties.get("dataset", ""), run_id, error)
            write_whole(path, page.encode())
        except Exception:
            _LOGGER.exception("the report could not be written")


def _run(input_dict: dict[str, list[Artifact]], exec_properties: dict[str, Any], run_id: str) -> Run:
    """The components that made the inputs; of their executions, and of the run's end, a component is told nothing."""
    made: dict[str, dict[str, list[Artifact]]] = {}
    for key, (component, name) in _MADE_BY.items():
        if found := input_dict.get(key):
            made.setdefault(component, {})[name] = found
    recipe = json.loads(exec_properties["recipe"])
    return Run(
        run_id=run_id,
        dataset=exec_properties["dataset"],
        executions=tuple(made_by(component, outputs) for component, outputs in made.items()),
        plan=Plan(
            class_names=tuple(json.loads(exec_properties["class_names"])),
            image_shape=tuple(recipe["data"]["image_shape"]),
            data_fingerprint=exec_properties["data_fingerprint"],
            recipe_name=exec_properties["recipe_name"],
            recipe=recipe,
            versions=package_versions(),
            code_version=code_version(),
        ),
    )
