"""`Report`: one HTML page of what the run did, as an artifact that Kubeflow Pipelines and Vertex AI show.

The last component. It reads the verdicts of all others, passed or not, and decides nothing: it never fails a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, OutputChannel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from mnist_tfx.components.data_gate.component import DataBlessing
from mnist_tfx.components.report.artifact import HTML
from mnist_tfx.components.report.executor import Executor


class ReportSpec(ComponentSpec):
    """Parameters, inputs and output of `Report`; the executor knows which component each input comes from."""

    PARAMETERS = {
        "dataset": ExecutionParameter(type=str),
        "class_names": ExecutionParameter(type=str),  # JSON
        "data_fingerprint": ExecutionParameter(type=str),
        "recipe_name": ExecutionParameter(type=str),
        "recipe": ExecutionParameter(type=str),  # JSON
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "data_blessing": ChannelParameter(type=DataBlessing),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "baseline": ChannelParameter(type=standard_artifacts.Model, optional=True),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
        "pushed_model": ChannelParameter(type=standard_artifacts.PushedModel),
    }
    OUTPUTS = {"report": ChannelParameter(type=HTML)}


class Report(BaseComponent):
    """Output `report`: the page.

    Its verdict is that of its input artifacts, which are all of its cache key but for the parameters: a page from the
    cache tells of the very same artifacts.
    """

    SPEC_CLASS = ReportSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        inputs: Mapping[str, BaseChannel | None],
        dataset: str,
        class_names: Sequence[str],
        data_fingerprint: str,
        recipe_name: str,
        recipe: Mapping[str, Any],
    ) -> None:
        """Makes the page.

        Args:
            inputs: by name, those of `ReportSpec.INPUTS`; None for one that the pipeline does not make.
            dataset: its name.
            class_names: by class number.
            data_fingerprint: of the prepared dataset.
            recipe_name: what people call the recipe.
            recipe: all settings, by section.
        """
        super().__init__(
            spec=ReportSpec(
                **inputs,
                dataset=dataset,
                class_names=json.dumps(list(class_names)),
                data_fingerprint=data_fingerprint,
                recipe_name=recipe_name,
                recipe=json.dumps(recipe, sort_keys=True),
                report=OutputChannel(HTML, self, "report"),
            )
        )
