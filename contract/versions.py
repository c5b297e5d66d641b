"""The versions of a model on disk: those a server sees, and those that were moved aside."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mnist_tfx.contract.errors import PipelineError, unknown_name
from mnist_tfx.contract.names import MODEL_CARD_PATH, PUSH_RECORD_PATH
from mnist_tfx.contract.remedies import FIRST_RUN, cautions

ROLLED_BACK = ".rolled_back"  # no integer: a server does not take it for a version

_INTEGER = re.compile(r"[0-9]+")  # what TF Serving reads as a version, up to the highest int64; 003 is 3
_INT64_MAX = 2**63 - 1
GRAPHS = ("saved_model.pb", "saved_model.pbtxt")


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
    def card(self) -> Path | None:
        """The model card; None where there is none."""
        path = self.path / MODEL_CARD_PATH
        return path if path.is_file() else None

    @property
    def is_rolled_back(self) -> bool:
        """Whether it was moved aside, out of a server's sight."""
        return self.path.parent.name == ROLLED_BACK

    @property
    def other_place(self) -> Path:
        """Where it goes to be moved aside; where it comes back to, if it was."""
        parent = self.path.parent
        return (parent.parent if self.is_rolled_back else parent / ROLLED_BACK) / self.path.name


def version_number(name: str) -> int | None:
    """The version that a folder of this name is to a server; None where it is none."""
    return int(name) if _INTEGER.fullmatch(name) and int(name) <= _INT64_MAX else None


def model_names(serving: Path) -> list[str]:
    """The models of a serving folder, sorted; none where it does not exist.

    A folder that cannot be listed, such as a disk's lost+found, which only root may read, is left out.
    """
    return [name for name in _folder_names(serving) if os.access(serving / name, os.R_OK | os.X_OK)]


def model_folder(serving: Path, model: str) -> Path:
    """The base path of a model. Raises PipelineError where nothing was pushed yet, UsageError for an unknown model."""
    names = _folder_names(serving)  # one that is asked for and cannot be read is no unknown one
    if not names:
        raise PipelineError(f"there is no model in {serving} yet. {FIRST_RUN}")
    if model not in names:
        raise unknown_name("model", model, names)
    return serving / model


def stored_versions(folder: Path) -> list[StoredVersion]:
    """What a server sees, by number. A file with an integer name is no whole version; TF Serving tries to load it."""
    paths = folder.iterdir() if folder.is_dir() else ()
    numbered = [(number, path) for path in paths if (number := version_number(path.name)) is not None]
    return [StoredVersion(number, path, _is_whole(path)) for number, path in sorted(numbered)]


def _folder_names(serving: Path) -> list[str]:
    if not serving.is_dir():
        return []
    return sorted(path.name for path in serving.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_whole(path: Path) -> bool:
    return any((path / name).is_file() and (path / name).stat().st_size > 0 for name in GRAPHS)
