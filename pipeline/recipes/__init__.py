"""Recipes: what a pipeline does with a dataset, one readable TOML file each, typed and validated."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, model_validator

from mnist_tfx.components.settings import (
    OF_OPTIMIZERS,
    AugmentationSettings,
    BeamSettings,
    DataSettings,
    DistillationSettings,
    EvaluationSettings,
    InfraSettings,
    ModelSettings,
    MonitoringSettings,
    PushSettings,
    Section,
    TrainingSettings,
    TransformSettings,
)
from mnist_tfx.components.tuner.settings import Choice, TunerSettings, needed_optimizers
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.projects import Project, shipped
from mnist_tfx.pipeline.settings_files import SettingsReader, read_toml, setting_keys

# Settings of section `data` that are paths; from a recipe's own folder, if they are not absolute.
_PATHS = ("images", "labels", "data_dir")
_MOST_CHANGES = 6  # beyond these it is another recipe


class Recipe(Section):
    """All settings of a pipeline."""

    data: DataSettings
    transform: TransformSettings = TransformSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    distillation: DistillationSettings = DistillationSettings()
    tuner: TunerSettings = TunerSettings()
    evaluation: EvaluationSettings
    push: PushSettings = PushSettings()
    infra: InfraSettings = InfraSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    beam: BeamSettings = BeamSettings()
    _project: Project | None = PrivateAttr(None)

    @property
    def project(self) -> Project:
        """Whose recipe it is."""
        return self._project or shipped(self.data.dataset)

    @model_validator(mode="after")
    def _one_search(self) -> Recipe:
        if self.tuner.tune and self.training.lr_find:
            raise ValueError(
                "tuner.tune and training.lr_find exclude each other: the tuner finds training.learning_rate too."
            )
        return self

    @model_validator(mode="after")
    def _searched_with_effect(self) -> Recipe:
        optimizers = self.tuner.space.get("training.optimizer")
        possible = optimizers.values if isinstance(optimizers, Choice) else (self.training.optimizer,)
        for key in self.tuner.space:
            needed = needed_optimizers(key)
            if needed and not set(needed) & set(possible):
                raise ValueError(
                    f"tuner.space: {key} has no effect with optimizer {' or '.join(possible)}, only with "
                    f"{' and '.join(needed)}: leave it out, or search training.optimizer too."
                )
        return self


_READER = SettingsReader(Recipe, "recipe", "--set", "training.epochs=3", see="`mnist-tfx recipes` lists the settings.")


def load_recipe(project: Project | str, name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Reads a recipe of a project (a shipped one by its dataset's name), and applies `KEY=VALUE` overrides.

    `name` is a recipe's, or a file's that ends in `.toml`.

    Raises:
        UsageError: an unknown recipe or setting (with the nearest match), a value that does not fit, or a study that is
            to push what nothing compares with the live model.
    """
    project = shipped(project) if isinstance(project, str) else project
    path = project.recipe_file(name)
    content, overrides = read_toml(path, "recipe"), list(overrides)
    push = content.get("push")
    # Before the overrides are applied to the content.
    is_study = isinstance(push, dict) and push.get("enabled") is False
    _leave_out_other_optimizers(content, overrides)
    _find_paths(content, path.resolve().parent)
    recipe = _READER.make(path, content, overrides)
    by_hand = any(override.partition("=")[0].strip().endswith("baseline") for override in overrides)
    if is_study and recipe.push.enabled and recipe.evaluation.baseline == "none" and not by_hand:
        raise UsageError(
            f"recipe {path.stem} is a study, which is compared with no live model: it could replace a better one. "
            "Use `run --push`, which compares it first."
        )
    if recipe.data.dataset != project.dataset:
        raise UsageError(f"recipe {path} is for dataset {recipe.data.dataset!r}, not {project.dataset!r}.")
    recipe._project = project
    return recipe


def _find_paths(content: dict[str, Any], folder: Path) -> None:
    data = content.get("data")
    if not isinstance(data, dict):
        return
    for name, value in data.items():
        if isinstance(value, str) and value and (name in _PATHS or (name == "builder" and ".py:" in value)):
            data[name] = str(folder / Path(value).expanduser())


def _leave_out_other_optimizers(content: dict[str, Any], overrides: Iterable[str]) -> None:
    """Where an override names another optimizer than the file, what the file says of its own alone has no effect."""
    training = content.get("training")
    if not isinstance(training, dict):
        return
    chosen = own = training.get("optimizer", TrainingSettings().optimizer)
    for override in overrides:
        key, _, value = (part.strip() for part in override.partition("="))
        if key in ("optimizer", "training.optimizer"):
            chosen = value.strip("\"'")
    if chosen != own:
        for setting, (optimizers, _) in OF_OPTIMIZERS.items():
            if chosen not in optimizers:
                training.pop(setting, None)


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Every setting by its full key, as `--set` takes it, with JSON-able values."""
    sections = recipe.model_dump(mode="json")
    return {key: reduce(getitem, key.split("."), sections) for key in setting_keys(Recipe)}


def recipe_name(recipe: Recipe) -> str:
    """What people call a recipe: the nearest of its project's, with what was changed, `default with training.epochs=3`.

    Found by its settings: they alone decide what runs. Where Beam runs is not counted, as it changes nothing of what
    comes out. Empty where none is near.
    """
    settings = _settings_that_count(recipe)
    changes = {}
    for name in recipe.project.recipes:
        with suppress(UsageError):  # a file beside it that is no recipe, or only half written
            known = _settings_that_count(load_recipe(recipe.project, name))
            changes[name] = [f"{key}={value}" for key, value in settings.items() if value != known[key]]
    nearest = min(changes, key=lambda name: (len(changes[name]), name != "default", name), default=None)
    if nearest is None or len(changes[nearest]) > _MOST_CHANGES:
        return ""
    return f"{nearest} with {', '.join(changes[nearest])}" if changes[nearest] else nearest


def _settings_that_count(recipe: Recipe) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in flatten(recipe).items() if not key.startswith("beam.")}
