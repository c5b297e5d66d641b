"""What the Trainer and the Tuner are told: which data, which classifier, how it is trained. Imports no TensorFlow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from mnist_tfx.components.settings import AugmentationSettings, DistillationSettings, ModelSettings, TrainingSettings
from mnist_tfx.components.tuner.settings import TunerSettings

_TEACHER_SEEDS = 1000  # a teacher's seed is the recipe's plus this times its number


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """What the pipeline hands to the Trainer as `custom_config`; every value takes part in TFX's cache key."""

    dataset: str
    data_fingerprint: str
    examples: str = ""  # digest of the Examples' content, which only a running Trainer knows
    base_weights: str = ""  # digest of the weights that training begins with, where a served model has them
    image_shape: tuple[int, int, int]
    normalization: str
    model: ModelSettings
    training: TrainingSettings
    augmentation: AugmentationSettings
    distillation: DistillationSettings
    teacher_channels: tuple[int, ...] = ()  # of the teacher that is trained, if it is one and convolutional
    tuner: TunerSettings | None = None  # where hyperparameters are searched before
    code_version: str
    class_names: tuple[str, ...]
    backup_dir: str

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> TrainerConfig:
        """The reverse of `to_json`."""
        return TypeAdapter(cls).validate_python(config)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dict(TypeAdapter(TrainerConfig).dump_python(self, mode="json"))

    def identity(self) -> dict[str, Any]:
        """What decides which model comes out: it is the model's metadata, and names its backup and its search."""
        return {key: value for key, value in self.to_json().items() if key not in ("class_names", "backup_dir")}

    def teacher(self, number: int) -> TrainerConfig:
        """The training of a teacher: this one with another seed, without distillation, from the beginning."""
        settings = self.training
        seed = settings.seed + _TEACHER_SEEDS * number
        epochs = self.distillation.teacher_epochs or settings.epochs
        return replace(
            self,
            training=settings.model_copy(update={"seed": seed, "epochs": epochs, "warm_start": False}),
            distillation=DistillationSettings(),
            teacher_channels=self.distillation.teacher_channels,
            base_weights="",
        )


def identity_digest(identity: Mapping[str, Any]) -> str:
    """Names a training or a search by all that decides how it comes out: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
