"""Recipes: what a pipeline does with a dataset, one readable TOML file each, typed and validated."""

from __future__ import annotations

import difflib
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.errors import UsageError, unknown_name
from components.settings import (
    BeamSettings,
    DataSettings,
    EvaluationSettings,
    InfraSettings,
    ModelSettings,
    Section,
    TrainingSettings,
    TransformSettings,
)

_FOLDER = Path(__file__).resolve().parent
MAIN_DATASETS = ("fashion_mnist", "mnist")  # what `--dataset all` runs


class Recipe(Section):
    """All settings of a pipeline."""

    data: DataSettings
    transform: TransformSettings = TransformSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings
    infra: InfraSettings = InfraSettings()
    beam: BeamSettings = BeamSettings()


def dataset_names() -> list[str]:
    """The datasets that have recipes."""
    return sorted(folder.name for folder in _FOLDER.iterdir() if list(folder.glob("*.toml")))


def recipe_files(dataset: str) -> dict[str, Path]:
    """The recipes of a dataset, by name.

    Raises:
        UsageError: no recipe is for this dataset.
    """
    if dataset not in dataset_names():
        raise unknown_name("dataset", dataset, [*dataset_names(), "all"])
    return {path.stem: path for path in sorted((_FOLDER / dataset).glob("*.toml"))}


def load_recipe(dataset: str, name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Reads a recipe by name, or a file whose name ends in `.toml`, and applies `KEY=VALUE` overrides.

    Raises:
        UsageError: an unknown recipe or setting (with the nearest match), or a value that does not fit.
    """
    if name.endswith(".toml"):
        path = Path(name)
    else:
        files = recipe_files(dataset)
        if name not in files:
            raise unknown_name(f"recipe of {dataset}", name, files)
        path = files[name]
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read recipe {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path} is not valid TOML: {error}.") from error
    for override in overrides:
        _apply(content, override)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"recipe {path}: " + "; ".join(_explain(details) for details in error.errors())) from error
    if recipe.data.dataset != dataset:
        raise UsageError(f"recipe {path} is for dataset {recipe.data.dataset!r}, not {dataset!r}.")
    return recipe


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Every setting by its full key, as `--set` takes it, with JSON-able values."""
    flat: dict[str, Any] = {}
    for key in _keys(Recipe):
        value: Any = recipe.model_dump(mode="json")
        for part in key.split("."):
            value = value[part]
        flat[key] = value
    return flat


def _apply(content: dict[str, Any], override: str) -> None:
    """Sets one `section.key=value`; a key that only one section has needs no section."""
    key, separator, text = override.partition("=")
    if not separator:
        raise UsageError(f"--set {override!r}: write KEY=VALUE, for example --set training.epochs=3.")
    *sections, last = _full_key(key.strip()).split(".")
    target = content
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise UsageError(f"{section}: the recipe has a value where it should have a section, [{section}].")
    target[last] = _parse_value(text.strip(), is_list=key.strip().endswith("args"))


def _full_key(key: str) -> str:
    known = _keys(Recipe)
    if key in known:
        return key
    matches = [full for full in known if full.endswith("." + key)]
    if len(matches) > 1:
        raise UsageError(f"setting {key!r} is ambiguous: {' or '.join(matches)}.")
    if not matches:
        raise _unknown_setting(key)
    return matches[0]


def _keys(section: type[Section], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        nested = isinstance(kind, type) and issubclass(kind, Section)
        keys += _keys(kind, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]  # type: ignore[arg-type]
    return keys


def _parse_value(text: str, is_list: bool) -> Any:
    """A TOML value; what is not one (`adamw`, `--runner=X --flag`) is text, for a list of arguments its words."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return shlex.split(text) if is_list else text


def _unknown_setting(key: str) -> UsageError:
    """Compares keys without their section too: `epohcs` is near `training.epochs`."""
    last = key.rpartition(".")[2]
    short = {known.rpartition(".")[2]: known for known in _keys(Recipe)}
    nearest = difflib.get_close_matches(key, _keys(Recipe), n=1, cutoff=0.8) or [
        short[match] for match in difflib.get_close_matches(last, short, n=1)
    ]
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UsageError(f"unknown setting {key!r}.{hint} `mnist-tfx recipes` lists the settings.")


def _explain(details: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        return str(_unknown_setting(key))
    if details["type"] == "missing":
        return f"{key} is missing"
    return f"{key}: {details['msg'][:1].lower()}{details['msg'][1:]} (got {details['input']!r})"
