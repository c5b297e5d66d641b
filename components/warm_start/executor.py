"""Executor and driver of `WarmStart`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfx.utils import io_utils, path_utils

from mnist_tfx.components.live.driver import SurroundingsDriver
from mnist_tfx.components.live.model import warm_start_version
from mnist_tfx.components.step import Artifacts, Step


class Executor(Step):
    """Copies the model, so that the lineage of what begins with it stays whole when versions are pruned."""

    def work(self, inputs: Artifacts, outputs: Artifacts, parameters: Mapping[str, Any]) -> None:
        """Writes the output `base_model`."""
        base_model = outputs["base_model"]
        version = warm_start_version(parameters["serving_dir"], parameters["data_fingerprint"])
        if version:
            io_utils.copy_dir(version.folder, path_utils.serving_model_dir(base_model.uri))
        base_model.set_string_custom_property("version", version.name if version else "")


class Driver(SurroundingsDriver):
    """Another version to begin with is another answer."""

    def surroundings(self, inputs: Artifacts, parameters: Mapping[str, Any]) -> str:
        version = warm_start_version(parameters["serving_dir"], parameters["data_fingerprint"])
        return version.name if version else ""
