"""`<serving>/models.config`: which versions a server serves, and their labels, as TF Serving reads them.

The messages come from `tensorflow_serving.config`, which does not import TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2 as pb

from components.errors import PipelineError
from serving.releases.config_text import UnreadableText, with_model, with_policy

FILE_NAME = "models.config"
STABLE = "stable"
CANARY = "canary"

_HEADER = """\
# Which versions the model server serves (TF Serving's ModelServerConfig). mnist-tfx canary, promote and rollback
# replace model_version_policy and version_labels, and leave everything else as it is.
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
        """The file of a serving folder.

        Raises:
            PipelineError: it cannot be read, or TF Serving would not take it.
        """
        path = serving / FILE_NAME
        try:
            text = path.read_text()
        except FileNotFoundError:
            return cls(path, None, pb.ModelServerConfig())
        except (OSError, UnicodeDecodeError) as error:
            raise PipelineError(f"cannot read {path}: {error}") from error
        return cls(path, text, parse(text, str(path)))

    @property
    def models(self) -> list[str]:
        """The names of the models it lists."""
        return [entry.name for entry in self.message.model_config_list.config]

    def pin(self, model: str) -> Pin | None:
        """What is pinned for a model; None where its newest version is served (or it is not listed)."""
        return pin_of(self.message, model, str(self.path))

    def with_pin(self, model: str, pin: Pin | None, models: Iterable[str]) -> ModelsConfig:
        """The file with another pin for a model, or none.

        Args:
            model: its name.
            pin: the new pin; None: the newest version is served.
            models: the models of the serving folder. A server with this file serves what it lists and nothing else, so
                those that are not in it yet are added, with TF Serving's default policy.

        Raises:
            PipelineError: a person wrote the file in a form that cannot be edited field by field.
        """
        text = _HEADER if self.text is None else self.text
        message = pb.ModelServerConfig()
        message.CopyFrom(self.message)
        policy = _policy(pin)
        try:
            for name in (name for name in models if name not in self.models):
                base_path = str(self.path.parent / name)
                entry = pb.ModelConfig(name=name, base_path=base_path, model_platform="tensorflow")
                message.model_config_list.config.append(entry)
                text = with_model(text, text_format.MessageToString(entry))
            for entry in message.model_config_list.config:
                if entry.name == model:
                    entry.ClearField("model_version_policy")
                    entry.ClearField("version_labels")
                    entry.MergeFrom(policy)
            text = with_policy(text, lambda body: _name_in(body) == model, text_format.MessageToString(policy))
            if parse(text, str(self.path)) != message:
                raise UnreadableText("the edited text does not say what it should")
        except (UnreadableText, PipelineError) as error:
            raise PipelineError(
                f"{self.path} is in a form that this command cannot edit ({error}). Nothing was changed. "
                f"Write by hand, in the config of {model!r}:\n{text_format.MessageToString(policy)}"
            ) from error
        return ModelsConfig(self.path, text, message)

    def write(self) -> None:
        """Puts the file in place whole: a reader sees the old or the new one. Without text it is removed."""
        target = self.path.resolve()
        if self.text is None:
            target.unlink(missing_ok=True)
            return
        incoming = target.with_name(f".{target.name}.incoming")
        with open(incoming, "w") as file:
            file.write(self.text)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            incoming.chmod(target.stat().st_mode & 0o777)
        os.replace(incoming, target)


def parse(text: str, where: str) -> pb.ModelServerConfig:
    """The message that the text is.

    Raises:
        PipelineError: it is none, has a `custom_model_config`, or names a model twice.
    """
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

    Raises:
        PipelineError: it has labels without versions to pin, or a `specific` without versions.
    """
    entry = next((entry for entry in message.model_config_list.config if entry.name == model), None)
    if entry is None:
        return None
    policy = entry.model_version_policy
    if policy.WhichOneof("policy_choice") == "specific" and policy.specific.versions:
        return Pin(tuple(sorted(set(policy.specific.versions))), dict(sorted(entry.version_labels.items())))
    if entry.version_labels or policy.WhichOneof("policy_choice") == "specific":
        raise PipelineError(
            f"{where}: the labels of {model!r} need a model_version_policy `specific` that has their versions. "
            "Add it, or remove the labels."
        )
    return None


def serves_newest_only(message: pb.ModelServerConfig, model: str) -> bool:
    """Whether the default policy holds for a model: one version, the newest."""
    for entry in message.model_config_list.config:
        if entry.name == model:
            policy = entry.model_version_policy
            choice = policy.WhichOneof("policy_choice")
            return choice is None or (choice == "latest" and policy.latest.num_versions <= 1)
    return True


def _policy(pin: Pin | None) -> pb.ModelConfig:
    policy = pb.ModelConfig()
    if pin is not None:
        policy.model_version_policy.specific.versions.extend(pin.versions)
        policy.version_labels.update(pin.labels)
    return policy


def _name_in(body: str) -> str:
    return text_format.Parse(body, pb.ModelConfig()).name
