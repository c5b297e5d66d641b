"""Executor and driver of `Baseline`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import Artifact, artifact_utils
from tfx.utils import io_utils, path_utils

from components.live.driver import SurroundingsDriver
from components.live.model import baseline_version


class Executor(BaseExecutor):
    """Copies the baseline model, so that the evaluation's lineage stays whole when versions are pruned."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the output `baseline`."""
        self._log_startup(input_dict, output_dict, exec_properties)
        candidate = _candidate(input_dict)
        baseline = artifact_utils.get_single_instance(output_dict["baseline"])
        version = baseline_version(exec_properties["serving_dir"], candidate)
        io_utils.copy_dir(version.folder if version else candidate, path_utils.serving_model_dir(baseline.uri))
        baseline.set_string_custom_property("version", version.name if version else "")


class Driver(SurroundingsDriver):
    """Another version to compare with is another answer."""

    def surroundings(self, inputs: Mapping[str, Sequence[Artifact]], parameters: Mapping[str, Any]) -> str:
        version = baseline_version(parameters["serving_dir"], _candidate(inputs))
        return version.name if version else ""


def _candidate(inputs: Mapping[str, Sequence[Artifact]]) -> str:
    """The folder of the SavedModel."""
    model = artifact_utils.get_single_instance(list(inputs["model"]))
    return str(path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model)))
