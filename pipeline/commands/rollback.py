"""`mnist-tfx rollback`: an earlier version answers again."""

from __future__ import annotations

import argparse

from mnist_tfx.pipeline.commands.options.release import add_release_arguments, make_release

SUMMARY = "Go back to an earlier version of a model, or withdraw its canary."
EXAMPLE = "mnist-tfx rollback mnist --reason 'wrong on sandals'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_release_arguments(parser)
    parser.add_argument(
        "--to",
        type=int,
        metavar="VERSION",
        help="the version to make live, rolled back ones included (default: the one before the live one)",
    )


def run(args: argparse.Namespace) -> int:
    """Changes the files that a server watches and waits until it follows."""
    from mnist_tfx.serving.releases.plans import rollback

    return make_release(args, lambda state: rollback(state, args.to))
