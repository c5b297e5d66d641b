"""What an exported model says of itself."""

from __future__ import annotations

import json
import os
from typing import Any

import tensorflow as tf

from mnist_tfx.contract.names import METADATA_PATH


def read_metadata(folder: str) -> dict[str, Any]:
    """The metadata of an exported model; empty if it holds none (it was not exported here)."""
    path = os.path.join(folder, METADATA_PATH)
    if not tf.io.gfile.exists(path):
        return {}
    with tf.io.gfile.GFile(path) as file:
        return dict(json.load(file))
