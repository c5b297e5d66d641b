"""The errors a user can meet, and the exit code of each (the README lists them)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PipelineError(Exception):
    """A run failed for a reason the user can act on. The message says what was wrong, where, and what to do."""

    exit_code = 1


class UsageError(PipelineError):
    """The command was given something it cannot use: an unknown name, a value out of range."""

    exit_code = 2


class DataRejected(PipelineError):
    """The data gate, or a check sum, found the data unfit for training."""

    exit_code = 3


class ModelRejected(PipelineError):
    """The model was evaluated and is not good enough to push."""

    exit_code = 4


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not among `known`, with the nearest match."""
    choices = sorted(known)
    nearest = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UsageError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(choices)}.")
