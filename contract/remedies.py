"""What to do where a run was rejected or broken off, in the words of the command line and of the report alike.

And what to know where a model was pushed past a check that somebody switched off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIRST_RUN = "Make one: mnist-tfx run --dataset mnist (or --project DIR)"
BROKEN_BOUNDS = "train a better one (recipe, epochs), or change the bounds in [evaluation] of the recipe."
FAILED_CHECKS = "mend the model's export, or change the limits in [infra] of the recipe."
REJECTED_DATA = "correct what is listed, each with its remedy, and run again: what was finished comes from the cache."
FAILED = "read what is said above, and the log of the run; then run again: what was finished comes from the cache."
BROKEN_OFF = "run again: what was finished comes from the cache, and training goes on after its last whole epoch."

NOT_COMPARED = "baseline=none: it was not compared with the model that was live, which may have been better."
INCOMPARABLE = "other"  # of the check `baseline`, where the live model was none to compare with
NOT_COMPARABLE = (
    "no baseline: it was not compared with the model that was live, which has other classes or another image shape."
)
DRIFT_ACCEPTED = "data.drift_reference=none: its data were not compared with those of the model that was live."


def cautions(pushed_model: Mapping[str, Any]) -> tuple[str, ...]:
    """Which checks a pushed model did not have to pass, by the properties of its PushedModel or its push record."""
    if not pushed_model.get("pushed", True):
        return ()
    checks = (
        ("baseline", "none", NOT_COMPARED),
        ("baseline", INCOMPARABLE, NOT_COMPARABLE),
        ("drift_reference", "none", DRIFT_ACCEPTED),
    )
    return tuple(words for name, value, words in checks if pushed_model.get(name) == value)


def never_recognized(classes: str) -> str:
    """Of classes with accuracy 0 that no bound kept from being pushed."""
    return (
        f"no image of {classes} is recognized (accuracy 0), and the recipe sets no bound for each class: set "
        "evaluation.min_class_accuracy"
    )
