"""`mnist-tfx promote`: make the canary, or another version, the stable one."""

from __future__ import annotations

import argparse

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.commands.options.release import add_release_arguments, make_release

SUMMARY = "Make the canary, or a named version, the stable one; later pushes wait until they are promoted."
EXAMPLE = "mnist-tfx promote mnist"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_release_arguments(parser)
    parser.add_argument("version", nargs="?", type=int, metavar="VERSION", help="default: the canary")
    parser.add_argument(
        "--follow-latest",
        action="store_true",
        help="pin no version any more and drop the labels: from here on each push goes live at once",
    )


def run(args: argparse.Namespace) -> int:
    """Changes the files that a server watches and waits until it follows.

    Raises:
        UsageError: a version and `--follow-latest` were both given.
    """
    from mnist_tfx.serving.releases.plans import follow_latest, promote

    if not args.follow_latest:
        return make_release(args, lambda state: promote(state, args.version))
    if args.version is not None:
        raise UsageError("--follow-latest takes no VERSION; promote the version first.")
    return make_release(args, follow_latest)
