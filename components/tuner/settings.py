"""The recipe's section `[tuner]`: whether and how hyperparameters are searched, and where. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field, ValidationError, field_validator, model_validator

from mnist_tfx.components.settings import (
    OF_OPTIMIZERS,
    AugmentationSettings,
    ModelSettings,
    Positive,
    Section,
    TrainingSettings,
)
from mnist_tfx.contract.errors import unknown_name

SEARCHED_SECTIONS: Mapping[str, type[Section]] = {
    "model": ModelSettings,
    "training": TrainingSettings,
    "augmentation": AugmentationSettings,
}
_NOT_SEARCHED = {
    "training.epochs": "the tuner says how long a trial trains: tuner.max_epochs",
    "training.seed": "a seed that is better by chance is not better",
    "training.monitor": "it is what trials are compared by",
    "training.lr_find": "search training.learning_rate itself",
    "training.warm_start": "every trial begins anew",
    "training.calibrate": "it changes the exported model, and no trial",
    "model.mirrored_averaging": "it changes the exported model, and no trial",
}


class Range(Section):
    """Numbers from `min` to `max`, both included."""

    min: int | float
    max: int | float
    log: bool = False  # whether each factor, rather than each difference, is equally likely

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.min < self.max:
            raise ValueError(f"min must be less than max (got {self.min!r} and {self.max!r})")
        if self.log and self.min <= 0:
            raise ValueError(f"min must be above 0 where log = true (got {self.min!r})")
        return self


class Choice(Section):
    """One of these."""

    values: Annotated[tuple[Any, ...], Field(min_length=2)]


_DEFAULT_SPACE: dict[str, Range | Choice] = {
    "training.learning_rate": Range(min=1e-4, max=1e-2, log=True),
    "model.dropout": Choice(values=(0.0, 0.2, 0.4)),
    "training.label_smoothing": Choice(values=(0.0, 0.1)),
}


class TunerSettings(Section):
    """How hyperparameters are searched; the best by the recipe's `training.monitor` on split eval is taken."""

    tune: bool = False  # whether the pipeline searches before it trains
    strategy: Literal["hyperband", "bayesian"] = "hyperband"
    trials: Positive = 20  # bayesian; how many trials hyperband makes follows from max_epochs and factor
    max_epochs: Positive = 9  # of a trial; hyperband gives so many only to the best
    factor: Annotated[int, Field(ge=2)] = 3  # hyperband: one of so many goes on, with so many times the epochs
    space: dict[str, Range | Choice] = _DEFAULT_SPACE  # settings of model, training and augmentation by their keys

    @model_validator(mode="after")
    def _of_the_strategy(self) -> TunerSettings:
        """Raises ValueError for what has no effect under the strategy."""
        name, other = ("trials", "bayesian") if self.strategy == "hyperband" else ("factor", "hyperband")
        default = type(self).model_fields[name].default
        if getattr(self, name) != default:
            raise ValueError(
                f"{name} has no effect with strategy {self.strategy!r}, only with {other}: leave it out "
                f"(--set tuner.{name}={default})"
            )
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # a dict has no hash of its own

    @field_validator("space", mode="before")
    @classmethod
    def _typed(cls, space: Any) -> Any:
        """Each entry by itself, so that a message speaks of what was meant rather than of every alternative."""
        if not isinstance(space, dict):
            return space
        flat = dict(_flatten(space))
        if not flat:
            raise ValueError("it is empty; name a setting, for example " + _EXAMPLE)
        return {key: _entry(key, value) for key, value in flat.items()}


_EXAMPLE = '"training.learning_rate" = { min = 1e-4, max = 1e-2, log = true }'


def _flatten(space: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """TOML takes the dot of `training.learning_rate = {...}`, without quotes, for a table in a table."""
    pairs: list[tuple[str, Any]] = []
    for key, value in space.items():
        if key in SEARCHED_SECTIONS and isinstance(value, dict):
            pairs += [(f"{key}.{inner}", entry) for inner, entry in value.items()]
        else:
            pairs.append((key, value))
    return pairs


def _entry(key: str, value: Any) -> Range | Choice:
    if key in _NOT_SEARCHED:
        raise ValueError(f"{key} cannot be searched: {_NOT_SEARCHED[key]}")
    keys = {f"{section}.{name}" for section, kind in SEARCHED_SECTIONS.items() for name in kind.model_fields}
    known = keys - set(_NOT_SEARCHED)
    if key not in known:
        raise ValueError(str(unknown_name("setting to search", key, known)))
    if isinstance(value, Range | Choice):
        return value
    kind: type[Range | Choice] = Choice if isinstance(value, dict) and "values" in value else Range
    try:
        entry = kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first.get("ctx", {}).get("error", first["msg"])
        raise ValueError(f"{key}: {where + ': ' if where else ''}{message}. Write it like {_EXAMPLE}") from error
    if isinstance(entry, Range) and field_type(key) not in (int, float):
        raise ValueError(f"{key} has no range; write {{ values = [...] }}")
    bounds = (entry.min, entry.max) if isinstance(entry, Range) else entry.values
    for bound in bounds:
        section, _, name = key.partition(".")
        try:
            SEARCHED_SECTIONS[section].model_validate(_with_optimizer(key, {name: bound}))
        except ValidationError as error:
            # Whether it goes with the other settings, which here are the defaults, each trial sees by itself.
            if its_own := [each for each in error.errors() if each["loc"][:1] == (name,)]:
                raise ValueError(f"{key}: {bound!r} does not fit: {its_own[0]['msg']}") from error
    return entry


def field_type(key: str) -> Any:
    """The Python type of a setting, by its full key; that of its values where it may be None."""
    section, _, name = key.partition(".")
    annotation = SEARCHED_SECTIONS[section].model_fields[name].annotation
    of_values = [kind for kind in get_args(annotation) if kind is not NoneType]
    if get_origin(annotation) is UnionType or get_origin(annotation) is Union:
        [annotation] = of_values
        annotation = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return annotation


def needed_optimizers(key: str) -> tuple[str, ...]:
    """The optimizers without which a setting has no effect; none for most settings."""
    section, _, name = key.partition(".")
    return OF_OPTIMIZERS[name][0] if section == "training" and name in OF_OPTIMIZERS else ()


def _with_optimizer(key: str, values: dict[str, Any]) -> dict[str, Any]:
    needed = needed_optimizers(key)
    return {"optimizer": needed[0], **values} if needed else values
