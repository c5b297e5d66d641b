"""Executor of `Report`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from tfx.types import Artifact

from mnist_tfx.components.code_version import code_version, package_versions
from mnist_tfx.components.pusher.publish import add_card
from mnist_tfx.components.report.artifact import html_file
from mnist_tfx.components.report.make import Made, keep, make_report, minimal_page
from mnist_tfx.components.report.run import Plan, Run, made_by
from mnist_tfx.components.step import Artifacts, Step
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


class Executor(Step):
    """Writes the page, or one that says why there is none; and the model card beside the model that the run pushed."""

    def work(self, inputs: Artifacts, outputs: Artifacts, parameters: Mapping[str, Any]) -> None:
        """Makes the report of what the artifacts tell; whatever goes wrong is logged, and fails nobody's run."""
        run_id = getattr(self._context, "pipeline_run_id", None) or ""
        try:
            try:
                run = _run(inputs, parameters, run_id)
                made = make_report(run)
                _leave_card(run, made)
            except Exception as error:
                _LOGGER.exception("the report could not be made")
                made = Made(minimal_page(parameters.get("dataset", ""), run_id, error))
            write_whole(html_file(outputs["report"].uri), made.page.encode())
            if made.drawn:
                keep(made.drawn, outputs["report"].uri)
        except Exception:
            _LOGGER.exception("the report could not be written")


def _leave_card(run: Run, made: Made) -> None:
    if not made.card or not run.push.get("pushed"):
        return
    try:
        add_card(str(run.push["pushed_destination"]), made.card)
    except Exception:
        _LOGGER.exception("no model card was put beside the model")


def _run(inputs: Artifacts, parameters: Mapping[str, Any], run_id: str) -> Run:
    """The components that made the inputs; of their executions, and of the run's end, a component is told nothing."""
    made: dict[str, dict[str, list[Artifact]]] = {}
    for key, (component, name) in _MADE_BY.items():
        if key in inputs:
            made.setdefault(component, {})[name] = [inputs[key]]
    recipe = json.loads(parameters["recipe"])
    return Run(
        run_id=run_id,
        dataset=parameters["dataset"],
        executions=tuple(made_by(component, outputs) for component, outputs in made.items()),
        plan=Plan(
            class_names=tuple(json.loads(parameters["class_names"])),
            image_shape=tuple(recipe["data"]["image_shape"]),
            data_fingerprint=parameters["data_fingerprint"],
            recipe_name=parameters["recipe_name"],
            recipe=recipe,
            versions=package_versions(),
            code_version=code_version(),
        ),
    )
