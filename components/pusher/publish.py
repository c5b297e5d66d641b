"""Makes a version of a model's folder, by one step that readers see whole or not at all.

Several runs may publish at once. Each copies to a place of its own first. On a file system one rename then makes the
version, and fails where another run was faster. An object store has no renaming of folders, nor such a failure: there,
numbers are microseconds, so that no two runs take the same, and the graph comes last. A version without its graph is
none to anybody (TF Serving tries again to load it).
"""

from __future__ import annotations

import os
import time
import uuid

import tensorflow as tf
from tfx.utils import io_utils

from mnist_tfx.components.live.model import Version, rolled_back_versions, stored_versions
from mnist_tfx.components.whole_files import write_whole
from mnist_tfx.contract.names import MODEL_CARD_PATH

_INCOMING = ".incoming-"  # no integer: TF Serving does not take it for a version
_LEFTOVER_SECONDS = 24 * 3600  # no copy takes so long: what is older is a killed run's
_GRAPH = "saved_model.pb"


def publish(model: str, serving_dir: str) -> Version:
    """Copies the folder `model` into a new version, whose number is higher than any there ever was.

    A number names one model for ever, also where it was rolled back, and whatever the clock says.
    """
    tf.io.gfile.makedirs(serving_dir)
    return _into_bucket(model, serving_dir) if "://" in serving_dir else _onto_disk(model, serving_dir)


def add_card(version: str, card: str) -> None:
    """Puts the model card into the folder of a version, whole or not at all.

    One that is there stays: it tells of the run that pushed the version. A version that is no longer there, since it
    was rolled back or removed, gets none.
    """
    path = os.path.join(version, MODEL_CARD_PATH)
    if tf.io.gfile.exists(os.path.join(version, _GRAPH)) and not tf.io.gfile.exists(path):
        write_whole(path, card.encode())


def _onto_disk(model: str, serving_dir: str) -> Version:
    _remove_leftovers(serving_dir)
    incoming = os.path.join(serving_dir, f"{_INCOMING}{int(time.time())}-{uuid.uuid4().hex}")
    io_utils.copy_dir(model, incoming)
    while True:
        version = _next_version(serving_dir, int(time.time()))
        try:
            os.rename(incoming, version.folder)
        except OSError:
            if not os.path.lexists(version.folder):
                raise
        else:
            return version


def _into_bucket(model: str, serving_dir: str) -> Version:
    version = _next_version(serving_dir, time.time_ns() // 1000)
    io_utils.copy_dir(model, version.folder, deny_regex_patterns=[rf"{_GRAPH}$"])
    io_utils.copy_file(os.path.join(model, _GRAPH), os.path.join(version.folder, _GRAPH))
    return version


def _next_version(serving_dir: str, now: int) -> Version:
    used = [*stored_versions(serving_dir), *rolled_back_versions(serving_dir)]
    number = max([now, *(version.number + 1 for version in used)])
    return Version(number, os.path.join(serving_dir, str(number)))


def _remove_leftovers(serving_dir: str) -> None:
    for name in tf.io.gfile.listdir(serving_dir):
        begun = name.removeprefix(_INCOMING).partition("-")[0]
        if name.startswith(_INCOMING) and begun.isdecimal() and time.time() - int(begun) > _LEFTOVER_SECONDS:
            tf.io.gfile.rmtree(os.path.join(serving_dir, name))
