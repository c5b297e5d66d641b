"""`mnist-tfx canary`: try a version beside the stable one."""

from __future__ import annotations

import argparse

from mnist_tfx.pipeline.commands.options.release import add_release_arguments, make_release

SUMMARY = "Serve a version behind the label 'canary', beside the one behind 'stable'."
EXAMPLE = "mnist-tfx canary mnist"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_release_arguments(parser)
    parser.add_argument(
        "version", nargs="?", type=int, metavar="VERSION", help="default: the newest that was not rolled back"
    )


def run(args: argparse.Namespace) -> int:
    """Changes the files that a server watches and waits until it follows."""
    from mnist_tfx.serving.releases.plans import canary

    return make_release(args, lambda state: canary(state, args.version))
