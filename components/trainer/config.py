"""What the Trainer and the Tuner are told: which data, which classifier, how it is trained. Imports no TensorFlow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mnist_tfx.components.settings import AugmentationSettings, DistillationSettings, ModelSettings, TrainingSettings
from mnist_tfx.components.tuner.settings import TunerSettings

_TEACHER_SEEDS = 1000  # a teacher's seed is the recipe's plus this times its number


@dataclass(frozen=True)
class TrainerConfig:
    """What the pipeline hands to the Trainer as `custom_config`; every value takes part in TFX's cache key."""

    dataset: str
    data_fingerprint: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    normalization: str
    model: ModelSettings
    training: TrainingSettings
    augmentation: AugmentationSettings
    distillation: DistillationSettings
    code_version: str
    backup_dir: str
    tuner: TunerSettings | None = None  # where hyperparameters are searched before
    examples: str = ""  # digest of the Examples' content, which only a running Trainer knows
    base_weights: str = ""  # digest of the weights that training begins with, where a served model has them

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> TrainerConfig:
        """The reverse of `to_json`."""
        return cls(
            **{
                **config,
                "class_names": tuple(config["class_names"]),
                "image_shape": tuple(config["image_shape"]),
                "model": ModelSettings.model_validate(config["model"]),
                "training": TrainingSettings.model_validate(config["training"]),
                "augmentation": AugmentationSettings.model_validate(config["augmentation"]),
                "distillation": DistillationSettings.model_validate(config["distillation"]),
                "tuner": TunerSettings.model_validate(config["tuner"]) if config.get("tuner") else None,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**self.identity(), "class_names": list(self.class_names), "backup_dir": self.backup_dir}

    def identity(self) -> dict[str, Any]:
        """What decides which model comes out: it is the model's metadata, and names its backup and its search."""
        return {
            "dataset": self.dataset,
            "data_fingerprint": self.data_fingerprint,
            "examples": self.examples,
            "base_weights": self.base_weights,
            "image_shape": list(self.image_shape),
            "normalization": self.normalization,
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "augmentation": self.augmentation.model_dump(mode="json"),
            "distillation": self.distillation.model_dump(mode="json"),
            "tuner": self.tuner.model_dump(mode="json") if self.tuner else None,
            "code_version": self.code_version,
        }

    def teacher(self, number: int) -> TrainerConfig:
        """The training of a teacher: this one with another seed, without distillation, from the beginning."""
        settings = self.training
        seed = settings.seed + _TEACHER_SEEDS * number
        epochs = self.distillation.teacher_epochs or settings.epochs
        return replace(
            self,
            training=settings.model_copy(update={"seed": seed, "epochs": epochs, "warm_start": False}),
            distillation=DistillationSettings(),
            base_weights="",
        )


def identity_digest(identity: Mapping[str, Any]) -> str:
    """Names a training or a search by all that decides how it comes out: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
