"""Tells how runs ended, as a table or as JSON, and says the exit code. Imports no TensorFlow."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from mnist_tfx.pipeline.outcome import Outcome, outcome_table
from mnist_tfx.pipeline.running.log_capture import lost_from

_FILE_COLUMNS = 120


def report_outcomes(outcomes: Sequence[Outcome], logs: Mapping[str, Path], *, as_json: bool) -> int:
    """Prints the closing table (or JSON) on stdout and what went wrong on stderr; returns the exit code.

    Args:
        outcomes: one per dataset.
        logs: the log of each dataset's run.
        as_json: whether a program reads it.
    """
    if as_json:
        print(json.dumps([outcome.to_json() for outcome in outcomes], indent=2))
    else:
        console = Console()
        if not console.is_terminal:  # a file has no width; rich would fold the table to 80 columns
            console.width = _FILE_COLUMNS
        console.print(outcome_table(outcomes))
    rejections = [rejection for outcome in outcomes if (rejection := outcome.rejection())]
    for rejection in rejections:
        print(f"error: {rejection}", file=sys.stderr)
    for dataset, log in logs.items():
        lost = lost_from(log)
        print(f"log of {dataset}: {log}{f' (not whole: {lost})' if lost else ''}", file=sys.stderr)
    for outcome in outcomes:
        if outcome.report:
            print(f"report of {outcome.dataset}: {outcome.report}", file=sys.stderr)
    codes = {rejection.exit_code for rejection in rejections}
    return codes.pop() if len(codes) == 1 else int(bool(codes))
