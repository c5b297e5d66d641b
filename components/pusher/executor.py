"""Executor and driver of `Pusher`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging
from tfx.components.pusher import executor as tfx_pusher
from tfx.types import Artifact, artifact_utils
from tfx.utils import io_utils

from mnist_tfx.components.live.driver import SurroundingsDriver
from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.live.model import (
    baseline_version,
    incomparable,
    is_same_model,
    rolled_back_versions,
    stored_versions,
)
from mnist_tfx.components.monitoring.reference import make_references, write_references
from mnist_tfx.components.pusher.publish import publish
from mnist_tfx.components.step import Artifacts, Step
from mnist_tfx.contract.names import DATA_STATISTICS_PATH, FIRST_SPAN, PUSH_RECORD_PATH, TEST
from mnist_tfx.contract.remedies import INCOMPARABLE

_CHECKS = ("baseline", "drift_reference")  # parameters that tell what the model had to pass


class Executor(Step, tfx_pusher.Executor):
    """Pushes a model that has its blessings, unless it is withheld or there already.

    A model that is the newest version already, file by file, is not pushed once more: a cluster's cache cannot know
    what is served, so this task runs each night there, and shall not make a server load the same model anew. Nor does
    it bring back one that was rolled back.
    """

    def work(self, inputs: Artifacts, outputs: Artifacts, parameters: Mapping[str, Any]) -> None:
        """Publishes the model with its push record and the statistics of its data."""
        pushed = outputs["pushed_model"]
        serving_dir = parameters["serving_dir"]
        self._MarkNotPushed(pushed)
        if not self.CheckBlessing(_as_tfx_has_them(inputs)):
            return
        if parameters["withheld"]:
            _say_why_not(pushed, parameters["withheld"])
            return
        model = self.GetModelPath(_as_tfx_has_them(inputs))
        aside = next((each for each in rolled_back_versions(serving_dir) if is_same_model(model, each.folder)), None)
        if aside:
            _say_why_not(pushed, f"version {aside.name}, which was rolled back, is this very model")
            return
        checks = {name: parameters[name] for name in _CHECKS}
        if checks["baseline"] == "served" and incomparable(model, baseline_version(serving_dir, model)):
            checks["baseline"] = INCOMPARABLE
        for name, value in checks.items():
            pushed.set_string_custom_property(name, value)
        newest = next(iter(stored_versions(serving_dir)), None)
        if newest and is_same_model(model, newest.folder):
            version = newest
        else:
            io_utils.copy_dir(model, pushed.uri)
            _add(pushed.uri, inputs["statistics"].uri, checks)
            if "examples" in inputs:
                _add_references(pushed.uri, inputs["examples"])
            version = publish(pushed.uri, serving_dir)
        self._MarkPushed(pushed, pushed_destination=version.folder, pushed_version=version.name)
        logging.info("Model pushed to %s.", version.folder)


class Driver(SurroundingsDriver):
    """What was pushed before under other circumstances is pushed, or refused, anew.

    A repeated run finds its own model as the newest version: the one below it is what it found the first time.
    """

    def surroundings(self, inputs: Artifacts, parameters: Mapping[str, Any]) -> str:
        serving_dir = parameters["serving_dir"]
        model = tfx_pusher.Executor().GetModelPath(_as_tfx_has_them(inputs))
        others = (each.name for each in stored_versions(serving_dir) if not is_same_model(model, each.folder))
        aside = [each.name for each in rolled_back_versions(serving_dir)]
        return json.dumps({"newest_other": next(others, None), "rolled_back": aside})


def _as_tfx_has_them(inputs: Artifacts) -> dict[str, list[Artifact]]:
    return {name: [artifact] for name, artifact in inputs.items()}


def _say_why_not(pushed: Artifact, reason: str) -> None:
    pushed.set_string_custom_property("not_pushed", reason)
    logging.info("Model not pushed: %s.", reason)


def _add(model: str, statistics_uri: str, checks: Mapping[str, str]) -> None:
    """Puts into the model's folder what later runs, and `mnist-tfx status`, want to know of it."""
    io_utils.copy_dir(statistics_uri, os.path.join(model, DATA_STATISTICS_PATH))
    with tf.io.gfile.GFile(os.path.join(model, PUSH_RECORD_PATH), "w") as file:
        json.dump(checks, file)


def _add_references(model: str, examples: Artifact) -> None:
    files = tf.io.gfile.glob(os.path.join(artifact_utils.get_split_uri([examples], TEST), "*"))
    spans = json.loads(examples.get_string_custom_property("spans") or "{}")  # where data were added
    class_names = read_metadata(model)["class_names"]
    numbers = sorted(map(int, spans)) or [FIRST_SPAN]
    write_references(model, make_references(model, sorted(files), class_names, numbers))
