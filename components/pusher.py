"""TFX's Pusher, pushing whole versions only."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf
from tfx.components.pusher import executor as tfx_pusher
from tfx.proto import pusher_pb2
from tfx.types import Artifact, artifact_utils
from tfx.utils import proto_utils

from serving.releases.versions import ROLLED_BACK

_INCOMING = ".incoming"  # no integer: TF Serving does not take it for a version


class Executor(tfx_pusher.Executor):
    """Pushes beside the versions, then renames.

    TFX's own copies into the version's folder: a killed run leaves it there half-written, and TF Serving tries to load
    it for ever. Where renaming a folder is not atomic (object stores), a reader may see a part of it for a moment.
    """

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model if it is blessed, as a version newer than all that are there."""
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
        version = str(max(int(arrived), _newest_version(serving_dir) + 1))
        final = os.path.join(serving_dir, version)
        tf.io.gfile.rename(os.path.join(incoming, arrived), final)
        if tf.io.gfile.exists(incoming):  # in a bucket, a folder is gone with its last file
            tf.io.gfile.rmtree(incoming)
        pushed.set_string_custom_property("pushed_destination", final)
        pushed.set_string_custom_property("pushed_version", version)


def _newest_version(serving_dir: str) -> int:
    """The highest number ever used, those that were rolled back included: a number names one model for ever."""
    names = tf.io.gfile.listdir(serving_dir)
    aside = os.path.join(serving_dir, ROLLED_BACK)
    if tf.io.gfile.isdir(aside):
        names += tf.io.gfile.listdir(aside)
    names = [name.rstrip("/") for name in names]
    return max((int(name) for name in names if name.isdecimal()), default=0)
