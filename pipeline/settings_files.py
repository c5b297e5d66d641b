"""Reads typed settings from TOML files, and applies `KEY=VALUE` overrides. Imports no TensorFlow."""

from __future__ import annotations

import difflib
import json
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from mnist_tfx.components.settings import Section
from mnist_tfx.contract.errors import UsageError

_Settings = TypeVar("_Settings", bound=Section)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file; `what` names its kind in messages.

    Raises:
        UsageError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read {what} {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{what} {path} is not valid TOML: {error}.") from error


def setting_keys(section: type[Section], prefix: str = "") -> list[str]:
    """The full keys (`training.epochs`) of all settings of a section."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        nested = isinstance(kind, type) and issubclass(kind, Section)
        keys += setting_keys(kind, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]  # type: ignore[arg-type]
    return keys


@dataclass(frozen=True)
class SettingsReader(Generic[_Settings]):
    """Makes one kind of settings of what a file says.

    Attributes:
        kind: the class of the settings.
        what: its name in messages, as in `recipe`.
        option: the option of the command line that overrides a setting.
        example: an override, for messages.
        see: a sentence that says where the settings are listed.
    """

    kind: type[_Settings]
    what: str
    option: str
    example: str
    see: str

    def make(self, path: Path, content: dict[str, Any], overrides: Iterable[str]) -> _Settings:
        """Validates `content`, which was read from `path`, after applying overrides to it.

        Raises:
            UsageError: an unknown setting (with the nearest match), or a value that does not fit.
        """
        for override in overrides:
            self._apply(content, override)
        try:
            return self.kind.model_validate(content)
        except ValidationError as error:
            explained = "; ".join(self._explain(details) for details in error.errors())
            raise UsageError(f"{self.what} {path}: {explained}") from error

    def _apply(self, content: dict[str, Any], override: str) -> None:
        """Sets one `section.key=value`; a key that only one section has needs no section."""
        key, separator, text = override.partition("=")
        if not separator:
            raise UsageError(f"{self.option} {override!r}: write KEY=VALUE, for example {self.option} {self.example}.")
        *sections, last = self._full_key(key.strip()).split(".")
        target = content
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise UsageError(f"{section}: the {self.what} has a value where it should have a section, [{section}].")
        target[last] = _parse_value(text.strip(), is_list=key.strip().endswith("args"))

    def _full_key(self, key: str) -> str:
        known = setting_keys(self.kind)
        if key in known:
            return key
        matches = [full for full in known if full.endswith("." + key)]
        if len(matches) > 1:
            raise UsageError(f"setting {key!r} is ambiguous: {' or '.join(matches)}.")
        if not matches:
            raise self._unknown_setting(key)
        return matches[0]

    def _unknown_setting(self, key: str) -> UsageError:
        """Compares keys without their section too: `epohcs` is near `training.epochs`."""
        last = key.rpartition(".")[2]
        known = setting_keys(self.kind)
        short = {full.rpartition(".")[2]: full for full in known}
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.8) or [
            short[match] for match in difflib.get_close_matches(last, short, n=1)
        ]
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        return UsageError(f"unknown setting {key!r}.{hint} {self.see}")

    def _explain(self, details: Mapping[str, Any]) -> str:
        key = ".".join(str(part) for part in details["loc"])
        if details["type"] == "extra_forbidden":
            return str(self._unknown_setting(key))
        if details["type"] == "missing":
            return f"{key} is missing"
        if details["type"] == "value_error":  # of a validator of ours: it says all there is to say
            return f"{key}: {details['ctx']['error']}" if key else str(details["ctx"]["error"])
        return f"{key}: {details['msg'][:1].lower()}{details['msg'][1:]} (got {details['input']!r})"


def _parse_value(text: str, is_list: bool) -> Any:
    """A TOML or JSON value; what is neither (`adamw`, `--runner=X`) is text, for a list of arguments its words."""
    with suppress(tomllib.TOMLDecodeError):
        return tomllib.loads(f"value = {text}")["value"]
    with suppress(json.JSONDecodeError):
        return json.loads(text)
    return shlex.split(text) if is_list else text
