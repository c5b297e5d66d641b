"""Options that name a recipe and the home; every command that takes a recipe has them. Imports no TensorFlow."""

from __future__ import annotations

import argparse


def add_recipe_arguments(
    parser: argparse.ArgumentParser,
    *,
    required: bool = True,
    dataset: str = "a dataset that has recipes",
    home: str = "where everything is written",
) -> None:
    """Declares `--dataset`, `--recipe`, `--set` and `--home`.

    Args:
        parser: the command's.
        required: whether `--dataset` must be given.
        dataset: what to say of `--dataset`.
        home: what to say of `--home`.
    """
    parser.add_argument("--dataset", required=required, help=dataset)
    parser.add_argument("--recipe", default="default", help="a recipe's name, or a .toml file (default: %(default)s)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the recipe (`mnist-tfx recipes` lists them); may be repeated",
    )
    parser.add_argument("--home", metavar="DIR", help=f"{home} (default: MNIST_TFX_HOME, else var/)")
