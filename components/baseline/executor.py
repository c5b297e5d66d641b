"""Executor and driver of `Baseline`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfx.utils import io_utils, path_utils

from mnist_tfx.components.live.driver import SurroundingsDriver
from mnist_tfx.components.live.model import baseline_version, incomparable
from mnist_tfx.components.step import Artifacts, Step


class Executor(Step):
    """Copies the baseline model, so that the evaluation's lineage stays whole when versions are pruned."""

    def work(self, inputs: Artifacts, outputs: Artifacts, parameters: Mapping[str, Any]) -> None:
        """Writes the output `baseline`."""
        candidate, baseline = _candidate(inputs), outputs["baseline"]
        version = baseline_version(parameters["serving_dir"], candidate)
        if not_compared := incomparable(candidate, version):
            baseline.set_string_custom_property("not_compared", not_compared)
            version = None
        io_utils.copy_dir(version.folder if version else candidate, path_utils.serving_model_dir(baseline.uri))
        baseline.set_string_custom_property("version", version.name if version else "")


class Driver(SurroundingsDriver):
    """Another version to compare with is another answer."""

    def surroundings(self, inputs: Artifacts, parameters: Mapping[str, Any]) -> str:
        version = baseline_version(parameters["serving_dir"], _candidate(inputs))
        return version.name if version else ""


def _candidate(inputs: Artifacts) -> str:
    """The folder of the SavedModel."""
    model = inputs["model"]
    return str(path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model)))
