"""`mnist-tfx canary`: try a version beside the stable one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mnist_tfx.pipeline.commands.options.release import add_release_arguments, make_release

if TYPE_CHECKING:
    from mnist_tfx.serving.releases.plans import Plan
    from mnist_tfx.serving.releases.state import ModelState

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

    def decide(state: ModelState) -> Plan:
        from mnist_tfx.serving.releases.plans import canary

        return canary(state, args.version)

    return make_release(args, decide)
