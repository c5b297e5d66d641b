"""Options of commands that take a recipe: its name, the home, and where a plot goes. Imports no TensorFlow."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mnist_tfx.contract.errors import UsageError


def add_recipe_arguments(
    parser: argparse.ArgumentParser,
    *,
    dataset: str = "a dataset that has recipes",
    home: str = "where everything is written",
) -> None:
    """Declares `--dataset`, `--recipe`, `--set` and `--home`.

    Args:
        parser: the command's.
        dataset: what to say of `--dataset`.
        home: what to say of `--home`.
    """
    parser.add_argument("--dataset", help=dataset)
    add_settings_arguments(parser, home)


def add_settings_arguments(parser: argparse.ArgumentParser, home: str = "where all state lives") -> None:
    """The same without `--dataset`."""
    parser.add_argument("--recipe", default="default", help="a recipe's name, or a .toml file (default: %(default)s)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the recipe (`mnist-tfx recipes` lists them); may be repeated",
    )
    parser.add_argument("--home", metavar="DIR", help=f"{home} (default: MNIST_TFX_HOME, else var/)")


def add_plot_argument(parser: argparse.ArgumentParser, name: str) -> None:
    """Declares `--output`, whose default is a file called `name`."""
    parser.add_argument("-o", "--output", metavar="PNG", help=f"the plot (default: {name} in the run's folder)")


def check_plot_argument(output: str | None) -> None:
    """To be called before the work begins.

    Raises:
        UsageError: no file can be written there.
    """
    if output is not None:
        folder = Path(output).resolve().parent
        if not os.access(folder, os.W_OK) or Path(output).is_dir():
            raise UsageError(f"cannot write the plot {output}: name a file in a folder that exists and can be written.")
