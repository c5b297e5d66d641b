"""TFX's Pusher, pushing whole versions only."""

from __future__ import annotations

import logging
import os
from typing import Any

import tensorflow as tf
from tfx.components.pusher import executor as tfx_pusher
from tfx.proto import pusher_pb2
from tfx.types import Artifact, artifact_utils
from tfx.utils import proto_utils

from serving.releases.versions import ROLLED_BACK

_LOGGER = logging.getLogger(__name__)
_INCOMING = ".incoming"  # no integer: TF Serving does not take it for a version


class Executor(tfx_pusher.Executor):
    """Pushes beside the versions, then renames.

    TFX's own copies into the version's folder: a killed run leaves it there half-written, and TF Serving tries to load
    it for ever. Where renaming a folder is not atomic (object stores), a reader may see a part of it for a moment.

    A model that is the newest version already, file by file, is not pushed once more. A cluster's cache cannot know
    what is served, so this task runs each night there: it shall neither make a server load the same model anew, nor
    bring back one that was rolled back.
    """

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model if it is blessed, as a version newer than all others, if the newest is not the same."""
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties["push_destination"], destination)
        serving_dir = destination.filesystem.base_directory
        incoming = os.path.join(serving_dir, _INCOMING)
        if tf.io.gfile.exists(incoming):  # of a run that was killed while it pushed
            tf.io.gfile.rmtree(incoming)
        destination.filesystem.base_directory = incoming
        super().Do(
            input_dict, output_dict, {**exec_properties, "push_destination": proto_utils.proto_to_json(destination)}
        )
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not pushed.get_int_custom_property("pushed"):
            return
        arrived = pushed.get_string_custom_property("pushed_version")
        model = os.path.join(incoming, arrived)
        newest, newest_folder = _newest_version(serving_dir)
        if newest_folder and _same_files(model, newest_folder):
            _LOGGER.info("The newest version, %d, is this very model: it is not pushed once more.", newest)
            version = str(newest)
        else:
            version = str(max(int(arrived), newest + 1))
            tf.io.gfile.rename(model, os.path.join(serving_dir, version))
        if tf.io.gfile.exists(incoming):  # in a bucket, a folder is gone with its last file
            tf.io.gfile.rmtree(incoming)
        pushed.set_string_custom_property("pushed_destination", os.path.join(serving_dir, version))
        pushed.set_string_custom_property("pushed_version", version)


def _newest_version(serving_dir: str) -> tuple[int, str]:
    """The highest number ever used and its folder, or 0 and "". A number names one model for ever, also rolled back."""
    found: dict[int, str] = {}
    for folder in (os.path.join(serving_dir, ROLLED_BACK), serving_dir):
        if tf.io.gfile.isdir(folder):
            names = [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]
            found |= {int(name): os.path.join(folder, name) for name in names if name.isdecimal()}
    return max(found.items(), default=(0, ""))


def _same_files(one: str, other: str) -> bool:
    """Whether two folders have the same files with the same content."""
    files = _files(one)
    return files == _files(other) and all(
        _content(os.path.join(one, name)) == _content(os.path.join(other, name)) for name in files
    )


def _files(folder: str) -> set[str]:
    return {
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in tf.io.gfile.walk(folder)
        for name in names
    }


def _content(path: str) -> bytes:
    with tf.io.gfile.GFile(path, "rb") as file:
        content: bytes = file.read()
        return content
