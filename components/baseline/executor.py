"""Executor of `Baseline`."""

from __future__ import annotations

import json
import os
from typing import Any

from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import Artifact, artifact_utils
from tfx.utils import io_utils, path_utils

from components.baseline.versions import baseline_version


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
        candidate = artifact_utils.get_single_instance(input_dict["model"])
        baseline = artifact_utils.get_single_instance(output_dict["baseline"])
        serving_dir = exec_properties["serving_dir"]
        version = baseline_version(serving_dir, json.loads(exec_properties["identity"]))
        source = (
            os.path.join(serving_dir, version)
            if version
            else path_utils.serving_model_path(candidate.uri, path_utils.is_old_model_artifact(candidate))
        )
        io_utils.copy_dir(source, path_utils.serving_model_dir(baseline.uri))
        baseline.set_string_custom_property("version", version)
