"""Reads what TFX's Tuner wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfx.dsl.io import fileio
from tfx.types import Artifact

from mnist_tfx.components.tuner.hyperparameters import EPOCHS, settings_found

_RESULTS_FILE = "tuner_results.json"  # as TFX's executor names it


@dataclass(frozen=True)
class TrialResult:
    """A trial that came to its end.

    Attributes:
        number: from 1, in the order in which trials began.
        score: the recipe's `training.monitor` on split eval, of the best epoch.
        epochs: how many it was given, where the tuner decides that.
        settings: what it trained with, by the settings' full keys.
    """

    number: int
    score: float
    epochs: int | None
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"trial": self.number, "score": self.score, "epochs": self.epochs, "settings": dict(self.settings)}


def settings_of_any(trials: Sequence[TrialResult]) -> list[str]:
    """The keys of all settings that were searched: of another optimizer than its own, a trial has none."""
    return list(dict.fromkeys(key for trial in trials for key in trial.settings))


def short(value: Any) -> str:
    """A setting's value for people to read."""
    return f"{value:.3g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def read_trials(outputs: Mapping[str, Sequence[Artifact]]) -> list[TrialResult]:
    """The trials of a Tuner's output artifacts, the best first."""
    [artifact] = outputs["tuner_results"]
    with fileio.open(os.path.join(artifact.uri, _RESULTS_FILE)) as file:
        rows = json.load(file)
    return [
        TrialResult(
            number=int(row.pop("trial_id")) + 1,
            score=row.pop("score"),
            epochs=row.get(EPOCHS),
            settings=settings_found(row),
        )
        for row in rows
    ]
