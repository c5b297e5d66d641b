"""Options that have no effect beside another one. Imports no TensorFlow."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.commands.options.server import DEFAULT_ADDRESS


def refuse_given(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raises UsageError where one of these options was given: it would have no effect."""
    vain = [name for name in names if getattr(args, name) not in (None, False, [], DEFAULT_ADDRESS)]
    if vain:
        options = ", ".join(f"--{name.rstrip('_').replace('_', '-')}" for name in vain)
        raise UsageError(f"{why}: leave out {options}.")
