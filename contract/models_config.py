"""`<serving>/models.config`: which versions a server serves, and their labels, as TF Serving reads them.

The commands own the file: they print it anew from what it says. Settings of a person's stay, comments do not; a file
without our header is a person's, and is kept beside the new one. The messages do not import TensorFlow.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2 as pb

from mnist_tfx.contract.errors import PipelineError

FILE_NAME = "models.config"
CONTAINER_FILE_NAME = "models.container.config"  # the same for a server that has the folder mounted at /models
CONTAINER_FOLDER = "/models"
STABLE = "stable"
CANARY = "canary"

_HEADER = """\
# Written by mnist-tfx canary, promote and rollback: which versions the model server serves (TF Serving's
# ModelServerConfig). Other settings that you add stay; comments do not.
"""


@dataclass(frozen=True)
class Pin:
    """Versions that are served until somebody says otherwise, and labels for some of them."""

    versions: tuple[int, ...]
    labels: Mapping[str, int]

    @property
    def stable(self) -> int:
        """What the label `stable` names; without that label, what a request without a label gets."""
        return self.labels.get(STABLE, self.highest)

    @property
    def canary(self) -> int | None:
        """The version on trial; None where the label `canary` is unused or stays at the stable version."""
        canary = self.labels.get(CANARY)
        return None if canary == self.stable else canary

    @property
    def highest(self) -> int:
        """What a request gets that names neither a version nor a label."""
        return max(self.versions)

    def moved(self, *, stable: int, canary: int | None) -> Pin:
        """The pin with other versions behind our two labels; what a person added for other labels stays.

        Without a canary a label `canary` that is in use goes to the stable version: its clients go on.
        """
        ours = {self.stable, self.labels.get(CANARY)}
        labels = dict(self.labels) | {STABLE: stable}
        if canary is not None or CANARY in labels:
            labels[CANARY] = stable if canary is None else canary
        return Pin(tuple(sorted({v for v in self.versions if v not in ours} | set(labels.values()))), labels)


@dataclass(frozen=True)
class ModelsConfig:
    """The file as it is; `text` is None where there is none."""

    path: Path
    text: str | None
    message: pb.ModelServerConfig

    @classmethod
    def read(cls, serving: Path) -> ModelsConfig:
        """The file of a serving folder. Raises PipelineError if it cannot be read, or TF Serving would not take it."""
        path = serving / FILE_NAME
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return cls(path, None, pb.ModelServerConfig())
        except (OSError, UnicodeDecodeError) as error:
            raise PipelineError(f"cannot read {path}: {error}") from error
        return cls(path, text, parse(text, str(path)))

    @property
    def models(self) -> list[str]:
        """The names of the models it lists."""
        return [entry.name for entry in self.message.model_config_list.config]

    @property
    def lists_nothing(self) -> bool:
        """Whether the file is there and names no model, as an editor or a full disk leaves it: no server takes it."""
        return self.text is not None and not self.models

    @property
    def kept_as(self) -> Path | None:
        """Where the file is kept when another takes its place; None where nobody wrote it by hand."""
        if self.text is None or not self.text.strip() or self.text.startswith(_HEADER):
            return None
        names = (f"{FILE_NAME}.by-hand{f'-{number}' if number > 1 else ''}" for number in itertools.count(1))
        paths = (self.path.with_name(name) for name in names)
        return next(
            path
            for path in paths
            if not path.exists() or path.read_text(encoding="utf-8", errors="replace") == self.text
        )

    def pin(self, model: str) -> Pin | None:
        """What is pinned for a model; None where its newest version is served (or it is not listed)."""
        return pin_of(self.message, model, str(self.path))

    def newest_served(self, model: str) -> int | None:
        """How many of the newest versions are served where none is pinned; None for all."""
        policies = [one.model_version_policy for one in self.message.model_config_list.config if one.name == model]
        if any(policy.WhichOneof("policy_choice") == "all" for policy in policies):
            return None
        return max([1, *(policy.latest.num_versions for policy in policies)])

    def with_pin(self, model: str, pin: Pin | None, models: Iterable[str]) -> ModelsConfig:
        """The file with another pin for a model; None: its newest version is served.

        A server serves what the file lists and nothing else: those of `models` that it lacks are added.
        """
        message = pb.ModelServerConfig()
        message.CopyFrom(self.message)
        entries = message.model_config_list.config
        for name in models:
            if name not in self.models:
                entries.add(name=name, base_path=str(self.path.parent / name), model_platform="tensorflow")
        [entry] = [entry for entry in entries if entry.name == model]
        entry.ClearField("model_version_policy")
        entry.ClearField("version_labels")
        if pin is not None:
            entry.model_version_policy.specific.versions.extend(pin.versions)
            entry.version_labels.update(pin.labels)
        return ModelsConfig(self.path, _HEADER + text_format.MessageToString(message), message)

    def write(self) -> None:
        """Puts the file in place, and its twin for containers; without text both are removed."""
        present = ModelsConfig.read(self.path.parent)
        if present.kept_as is not None and present.text is not None and present.text != self.text:
            present.kept_as.write_text(present.text, encoding="utf-8")
        in_container = pb.ModelServerConfig()
        in_container.CopyFrom(self.message)
        for entry in in_container.model_config_list.config:
            entry.ClearField("logging_config")  # TF Serving's own build has no log collector, and would not start
            base_path = Path(entry.base_path)
            if base_path.is_relative_to(self.path.parent):
                entry.base_path = str(CONTAINER_FOLDER / base_path.relative_to(self.path.parent))
            if not entry.HasField("model_version_policy"):
                entry.model_version_policy.latest.num_versions = 2  # a broken newest one is no outage at a restart
        twin = None if self.text is None else _HEADER + text_format.MessageToString(in_container)
        _replace(self.path.with_name(CONTAINER_FILE_NAME), twin)
        _replace(self.path, self.text)


def _replace(path: Path, text: str | None) -> None:
    """A reader sees the old or the new file whole."""
    target = path.resolve()
    if text is None:
        target.unlink(missing_ok=True)
        return
    incoming = target.with_name(f".{target.name}.incoming")
    with open(incoming, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if target.exists():
        incoming.chmod(target.stat().st_mode & 0o777)
    os.replace(incoming, target)


def parse(text: str, where: str) -> pb.ModelServerConfig:
    """The message that the text is. Raises PipelineError where it is none, or TF Serving would not take it."""
    try:
        message = text_format.Parse(text, pb.ModelServerConfig())
    except text_format.ParseError as error:
        raise PipelineError(f"{where} is no ModelServerConfig: {error}. Correct it, or move it away.") from error
    if message.WhichOneof("config") == "custom_model_config":
        raise PipelineError(f"{where} has a custom_model_config; TF Serving does not take one. Use model_config_list.")
    names = [entry.name for entry in message.model_config_list.config]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PipelineError(f"{where} lists a model twice: {', '.join(twice)}. Remove one of the two.")
    return message


def pin_of(message: pb.ModelServerConfig, model: str, where: str) -> Pin | None:
    """What a config pins for a model; None where it is not listed or the newest version is served.

    Raises PipelineError where it has labels without versions to pin, or a `specific` without versions.
    """
    entry = next((entry for entry in message.model_config_list.config if entry.name == model), pb.ModelConfig())
    is_specific = entry.model_version_policy.WhichOneof("policy_choice") == "specific"
    versions = entry.model_version_policy.specific.versions
    if is_specific and versions:
        return Pin(tuple(sorted(set(versions))), dict(sorted(entry.version_labels.items())))
    if entry.version_labels or is_specific:
        raise PipelineError(
            f"{where}: the labels of {model!r} need a model_version_policy `specific` that has their versions. "
            "Add it, or remove the labels."
        )
    return None
