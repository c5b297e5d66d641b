"""Which pushed version a candidate is compared with."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from components.export import read_metadata


def baseline_version(serving_dir: str, identity: dict[str, Any]) -> str:
    """The newest pushed version that another recipe, other data or other code made; "" if there is none.

    A version with the candidate's own identity is the candidate itself, pushed by an earlier run of the same pipeline.
    Leaving it out keeps a repeated run a cache hit from end to end, and a model from being its own yardstick.

    Args:
        serving_dir: base path of the served model; its subfolders with integer names are versions.
        identity: what decides which model comes out (`TrainerConfig.identity`).
    """
    if not tf.io.gfile.isdir(serving_dir):
        return ""
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(serving_dir)]
    for version in sorted((name for name in names if name.isdecimal()), key=int, reverse=True):
        folder = os.path.join(serving_dir, version)
        if not tf.io.gfile.exists(os.path.join(folder, "saved_model.pb")):
            continue
        metadata = read_metadata(folder)
        if {key: metadata.get(key) for key in identity} != identity:
            return version
    return ""
