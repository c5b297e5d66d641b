"""Where a model's request log is: the option that `monitor` and `feedback` have in common."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_tfx.pipeline.home import Home
    from mnist_tfx.pipeline.recipes import Recipe


def add_logs_argument(parser: argparse.ArgumentParser) -> None:
    """Declares `--logs`."""
    parser.add_argument("--logs", metavar="PREFIX", help="of the log files (default: HOME/requests/MODEL/requests)")


def log_prefix(named: str | None, recipe: Recipe, home: Home, model: str) -> str:
    """The prefix that `--logs` names, else the recipe, else that of `mnist-tfx serve --log-requests`."""
    return named or recipe.monitoring.logs or str(home.requests(model))
