"""The versions of a served model, in a folder or a bucket: which one is live, and which is the very model at hand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf
from tfx.utils import path_utils

from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.whole_files import PARTIAL
from mnist_tfx.contract import releases
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.contract.models_config import FILE_NAME, parse, pin_of
from mnist_tfx.contract.names import DATA_STATISTICS_PATH, MODEL_CARD_PATH, PUSH_RECORD_PATH, REFERENCE_PATH
from mnist_tfx.contract.versions import GRAPHS, ROLLED_BACK, version_number

# What two models must have in common to be asked the same images and compared: by key of their metadata, in words.
_OF_THE_IMAGES = {"class_names": "other classes", "image_shape": "another image shape"}


class Version(NamedTuple):
    """A folder with an integer name, whole or not; `003` is version 3, as TF Serving reads it."""

    number: int
    folder: str

    @property
    def name(self) -> str:
        """The folder's own name."""
        return os.path.basename(self.folder)


def stored_versions(serving_dir: str) -> list[Version]:
    """What a server sees, the newest first."""
    if not tf.io.gfile.isdir(serving_dir):
        return []
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(serving_dir)]  # in a bucket, a folder's ends in a slash
    numbers = [(version_number(name), os.path.join(serving_dir, name)) for name in names]
    return sorted((Version(number, folder) for number, folder in numbers if number is not None), reverse=True)


def rolled_back_versions(serving_dir: str) -> list[Version]:
    """What was moved aside or, where another version is pinned, withdrawn in its place; the newest first."""
    withdrawn = _withdrawn(serving_dir)
    live = live_version(serving_dir) if withdrawn else None
    in_place = [each for each in stored_versions(serving_dir) if each.number in withdrawn and each != live]
    return sorted([*in_place, *stored_versions(os.path.join(serving_dir, ROLLED_BACK))], reverse=True)


def live_version(serving_dir: str) -> Version | None:
    """The newest whole version, or the stable one where `models.config` pins one; None where nothing is served.

    Raises:
        PipelineError: `models.config` cannot be read, or TF Serving would not take it.
    """
    return next(_live_and_before(serving_dir), None)


def baseline_version(serving_dir: str, model_dir: str) -> Version | None:
    """What a candidate is compared with: the live version, or the one before it where the live one is this very model.

    What waits to be promoted serves nobody, and what was rolled back is not looked at. Passing over the candidate
    itself keeps a repeated run a cache hit from end to end, and a model from being its own yardstick.

    Args:
        serving_dir: base path of the served model.
        model_dir: the candidate's SavedModel.

    Raises:
        PipelineError: `models.config` cannot be read, or TF Serving would not take it.
    """
    return next((each for each in _live_and_before(serving_dir) if not is_same_model(model_dir, each.folder)), None)


def warm_start_version(serving_dir: str, data_fingerprint: str) -> Version | None:
    """Whose weights a training on new data begins with: the live version, or the one before that saw other data.

    Passing over what was trained on the very data keeps a repeated run a cache hit, and has runs on the same data with
    different settings begin with the same weights.

    Args:
        serving_dir: base path of the served model.
        data_fingerprint: of the data to be trained on.

    Raises:
        PipelineError: `models.config` cannot be read, or TF Serving would not take it.
    """
    versions = _live_and_before(serving_dir)
    other = (each for each in versions if read_metadata(each.folder).get("data_fingerprint") != data_fingerprint)
    return next(other, None)


def incomparable(model_dir: str, version: Version | None) -> str:
    """Why a version cannot be compared with a candidate, in words; empty where it can, or does not say, or is none."""
    mine, its = read_metadata(model_dir), read_metadata(version.folder) if version else {}
    said = {key: words for key, words in _OF_THE_IMAGES.items() if key in mine and key in its}
    differing = [words for key, words in said.items() if mine[key] != its[key]]
    return f"version {version.name} has {' and '.join(differing)}" if version and differing else ""


def is_same_model(one: str, other: str) -> bool:
    """Whether two SavedModels are the same file by file, whatever a push, or the Report after it, added to either."""
    files = _files(one)
    return files == _files(other) and all(
        _content(os.path.join(one, name)) == _content(os.path.join(other, name)) for name in files
    )


def model_digest(folder: str) -> str:
    """SHA-256, in hex, of a SavedModel's files, whatever a push added: the same for the same model."""
    digest = hashlib.sha256()
    for name in sorted(_files(folder)):
        digest.update(f"{name}\0{hashlib.sha256(_content(os.path.join(folder, name))).hexdigest()}\0".encode())
    return digest.hexdigest()


def _live_and_before(serving_dir: str) -> Iterator[Version]:
    """The whole versions from the live one down, but for those below it that were rolled back."""
    stored = stored_versions(serving_dir)
    stable = _stable_version(serving_dir) if stored else None
    whole = (each for each in stored if (stable is None or each.number <= stable) and _is_whole(each.folder))
    live = next(whole, None)
    if live is not None:
        yield live  # whatever was recorded: by hand, what was rolled back can be served again
        withdrawn = _withdrawn(serving_dir)
        yield from (each for each in whole if each.number not in withdrawn)


def _is_whole(folder: str) -> bool:
    """As `contract.versions` has it, also in a bucket."""
    graphs = [os.path.join(folder, name) for name in GRAPHS]
    return any(tf.io.gfile.exists(graph) and tf.io.gfile.stat(graph).length > 0 for graph in graphs)


def _stable_version(serving_dir: str) -> int | None:
    """What is pinned; None where the newest version is served."""
    serving, model = os.path.split(serving_dir.rstrip("/"))
    path = os.path.join(serving, FILE_NAME)
    if not tf.io.gfile.exists(path):
        return None
    try:
        with tf.io.gfile.GFile(path) as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise PipelineError(f"cannot read {path}: {error}") from error
    pin = pin_of(parse(text, path), model, path)
    return None if pin is None else pin.stable


def _withdrawn(serving_dir: str) -> frozenset[int]:
    """What was rolled back, as the record of the releases has it; none where there is no record, as in a bucket."""
    serving, model = os.path.split(serving_dir.rstrip("/"))
    path = os.path.join(serving, releases.FILE_NAME)
    text = _content(path).decode(errors="replace") if tf.io.gfile.exists(path) else ""
    return releases.withdrawn_versions(releases.parse(text, model))


def _files(folder: str) -> set[str]:
    names = {
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in tf.io.gfile.walk(folder)
        for name in names
    }
    warmup = os.path.relpath(path_utils.warmup_file_path(folder), folder)
    added = (warmup, PUSH_RECORD_PATH, REFERENCE_PATH, MODEL_CARD_PATH, MODEL_CARD_PATH + PARTIAL)
    return {name for name in names if name not in added and not name.startswith(f"{DATA_STATISTICS_PATH}/")}


def _content(path: str) -> bytes:
    with tf.io.gfile.GFile(path, "rb") as file:
        content: bytes = file.read()
        return content
