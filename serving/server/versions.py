"""Which versions of a model are there, and which of them are wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from mnist_tfx.contract.versions import version_number


@dataclass(frozen=True)
class Scan:
    """What a look at a model's files gave."""

    wanted: Mapping[int, str] | None
    """The paths of the versions to serve, by number; None where the base path cannot be read."""
    problem: str = ""
    """Why there is nothing to serve."""


def scan(model: ModelConfig) -> Scan:
    """Looks at a model's files; raises nothing, for whatever is in the way may be gone at the next look."""
    try:
        found = find_versions(model.base_path)
    except Exception as error:  # an OSError, or what nobody foresaw
        return Scan(None, f"base path {model.base_path} of model {model.name} cannot be read: {error}")
    wanted = wanted_versions(found, model.model_version_policy)
    return Scan(wanted, "" if wanted else f"no version of model {model.name} to serve under {model.base_path}")


def find_versions(base_path: str) -> dict[int, str]:
    """The version folders of a model, by number: every folder whose name is a number. Others are ignored.

    Args:
        base_path: a folder, or a URI that TensorFlow's file systems know.

    Raises:
        OSError: the base path is missing or cannot be read, which must not be taken for a model without versions.
    """
    try:
        names = tf.io.gfile.listdir(base_path)
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
    except UnicodeDecodeError:  # a name that is no UTF-8 must not hide the others
        names = os.listdir(base_path)
    versions: dict[int, str] = {}
    for name in sorted(name.rstrip("/") for name in names):
        number, path = version_number(name), os.path.join(base_path, name)
        if number is not None and tf.io.gfile.isdir(path):
            versions.setdefault(number, path)  # of "1" and "01" one is as good as the other
    return versions


def wanted_versions(
    versions: Mapping[int, str], policy: FileSystemStoragePathSourceConfig.ServableVersionPolicy
) -> dict[int, str]:
    """The versions that a policy asks for, of those that are there: the latest N (by default 1), all, or some."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return dict(versions)
    if choice == "specific":
        return {version: versions[version] for version in policy.specific.versions if version in versions}
    count = max(1, policy.latest.num_versions)
    return {version: versions[version] for version in sorted(versions, reverse=True)[:count]}
