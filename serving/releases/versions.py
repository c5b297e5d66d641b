"""The versions of a model on disk: those a server sees, and those that were moved aside."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from components.errors import PipelineError, unknown_name
from components.features import PUSH_RECORD_PATH
from components.remedies import cautions

ROLLED_BACK = ".rolled_back"  # no integer: a server does not take it for a version

_INTEGER = re.compile(r"[0-9]+")  # what TF Serving reads as a version, up to the highest int64; 003 is 3
_INT64_MAX = 2**63 - 1
_GRAPHS = ("saved_model.pb", "saved_model.pbtxt")


@dataclass(frozen=True)
class StoredVersion:
    """A folder with an integer name. `003` is version 3, as TF Serving reads it."""

    number: int
    path: Path
    whole: bool  # it holds a graph; a half-copied version does not, and no server can load it

    @property
    def cautions(self) -> tuple[str, ...]:
        """Which checks it was pushed without, in words; none where no pipeline of ours pushed it."""
        try:
            return cautions(json.loads((self.path / PUSH_RECORD_PATH).read_text()))
        except (OSError, ValueError):
            return ()

    @property
    def is_rolled_back(self) -> bool:
        """Whether it was moved aside, out of a server's sight."""
        return self.path.parent.name == ROLLED_BACK


def version_number(name: str) -> int | None:
    """The version that a folder of this name is to a server; None where it is none."""
    return int(name) if _INTEGER.fullmatch(name) and int(name) <= _INT64_MAX else None


def model_names(serving: Path) -> list[str]:
    """The models of a serving folder, sorted; none where it does not exist."""
    if not serving.is_dir():
        return []
    return sorted(path.name for path in serving.iterdir() if path.is_dir() and not path.name.startswith("."))


def model_folder(serving: Path, model: str) -> Path:
    """The base path of a model.

    Raises:
        PipelineError: nothing was pushed yet.
        UsageError: no model is named so; the message has the nearest name.
    """
    names = model_names(serving)
    if not names:
        raise PipelineError(f"there is no model in {serving} yet. Make one: mnist-tfx run --dataset mnist")
    if model not in names:
        raise unknown_name("model", model, names)
    return serving / model


def stored_versions(folder: Path) -> list[StoredVersion]:
    """What a server sees, by number. A file with an integer name is no whole version; TF Serving tries to load it."""
    return _versions_in(folder)


def rolled_back_versions(folder: Path) -> list[StoredVersion]:
    """What was moved aside, by number."""
    return _versions_in(folder / ROLLED_BACK)


def aside(version: StoredVersion) -> Path:
    """Where a version goes that no server shall see."""
    return version.path.parent / ROLLED_BACK / version.path.name


def back(version: StoredVersion) -> Path:
    """Where a version comes back to that was moved aside."""
    return version.path.parent.parent / version.path.name


def _versions_in(folder: Path) -> list[StoredVersion]:
    if not folder.is_dir():
        return []
    found = [
        StoredVersion(number, path, _is_whole(path))
        for path in folder.iterdir()
        if (number := version_number(path.name)) is not None
    ]
    return sorted(found, key=lambda version: (version.number, version.path.name))


def _is_whole(path: Path) -> bool:
    return any((path / name).is_file() and (path / name).stat().st_size > 0 for name in _GRAPHS)
