"""Which pushed version a candidate is compared with."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from components.export import ASKED_IDENTITY, read_metadata
from serving.releases.models_config import FILE_NAME, parse, pin_of


def baseline_version(serving_dir: str, identity: dict[str, Any]) -> str:
    """The live version, or the newest one before it that another recipe, other data or other code made; "" if none did.

    Live is the newest version, or the stable one where `models.config` pins one: what waits to be promoted serves
    nobody. What was rolled back was moved aside, and is not looked at.

    A version with the candidate's own identity is the candidate itself, pushed by an earlier run of the same pipeline.
    Leaving it out keeps a repeated run a cache hit from end to end, and a model from being its own yardstick.

    Args:
        serving_dir: base path of the served model; its subfolders with integer names are versions.
        identity: what decides which model comes out (`TrainerConfig.identity`).
    """
    if not tf.io.gfile.isdir(serving_dir):
        return ""
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(serving_dir)]
    stable = _stable_version(serving_dir)
    for version in sorted((name for name in names if name.isdecimal()), key=int, reverse=True):
        if stable is not None and int(version) > stable:
            continue
        folder = os.path.join(serving_dir, version)
        if not tf.io.gfile.exists(os.path.join(folder, "saved_model.pb")):
            continue
        metadata = read_metadata(folder)
        metadata = metadata.get(ASKED_IDENTITY, metadata)  # what a search finds is not known before the run
        if {key: metadata.get(key) for key in identity} != identity:
            return version
    return ""


def _stable_version(serving_dir: str) -> int | None:
    """What is pinned; None where the newest version is served."""
    serving, model = os.path.split(serving_dir.rstrip("/"))
    path = os.path.join(serving, FILE_NAME)
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path) as file:
        pin = pin_of(parse(file.read(), path), model, path)
    return None if pin is None else pin.stable
